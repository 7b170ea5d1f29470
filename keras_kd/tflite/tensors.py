"""An input or an output of a .tflite model: its name, its shape and how it stores numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_kd._checks import problem
from keras_kd._tables import shape_text


@dataclass(frozen=True)
class TensorInfo:
    """An input or an output of a .tflite model.

    Attributes:
        name: its name in the signature of the model.
        shape: its shape, the batch size 1 in front; None where any size can be fed.
        dtype: its numpy dtype.
        scale: real value = scale * (stored value - zero_point); 0.0 when it is not quantized.
        zero_point: see `scale`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    scale: float = 0.0
    zero_point: int = 0

    @property
    def is_quantized(self) -> bool:
        """Whether integers represent real numbers here."""
        return self.scale != 0.0

    @property
    def takes_any_length(self) -> bool:
        """Whether some of its sizes are those of what is fed."""
        return None in self.shape

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.name}{shape_text(self.shape)}"

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Real numbers to what the tensor stores: rounded, clipped to its range."""
        if not self.is_quantized:
            return values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        stored = np.round(values / np.float32(self.scale)) + self.zero_point
        return np.clip(stored, limits.min, limits.max).astype(self.dtype)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        """What the tensor stores to real numbers (float32)."""
        if not self.is_quantized:
            return stored
        shifted = stored.astype(np.float32) - np.float32(self.zero_point)
        return shifted * np.float32(self.scale)


# Long enough for the kernels of common models, short enough to be computed at once.
_ANY_SIZE = 32


def concrete(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """A shape that can be fed: 32 where any size can."""
    return tuple(_ANY_SIZE if size is None else size for size in shape)


def random_stored(tensor: TensorInfo, examples: int) -> np.ndarray:
    """Values that any model accepts, as `tensor` stores them, shaped (examples, ...).

    Quantized tensors get every value that they can store, floats get 0 to 1, and integers that
    represent themselves (words, categories) get 0. Where any size can be fed, it is 32.
    """
    shape = (examples, *concrete(tensor.shape[1:]))
    generator = np.random.default_rng(0)
    if tensor.is_quantized:
        limits = np.iinfo(tensor.dtype)
        return generator.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True)
    if np.issubdtype(tensor.dtype, np.floating):
        return generator.random(shape).astype(tensor.dtype)
    return np.zeros(shape, tensor.dtype)


def check_scale(values: np.ndarray, name: str, limits: tuple[float, float]) -> None:
    """Refuse values that are scaled in another way than those that a file was calibrated on.

    Single values out of range are clipped, as on the device. If most are far out of it, for example
    0..255 in a file for 0..1, the results would mean nothing.

    Args:
        values: real numbers.
        name: the input that they are for.
        limits: the smallest and the largest number that it distinguishes.

    Raises:
        ValueError: if the mean magnitude is above four times what the input can hold.
    """
    if values.size and np.abs(values).mean() > 4 * max(map(abs, limits)):
        raise problem(
            f"values from {values.min():g} to {values.max():g} for the input {name!r}",
            f"about {limits[0]:g} to {limits[1]:g}, what the file was calibrated on",
            "scale them as the representative data were, for example x / 255",
        )
