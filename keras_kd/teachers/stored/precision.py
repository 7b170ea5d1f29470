"""The dtypes in which numbers are stored: what they reach, and what they round."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_kd._checks import problem

DTYPES = ("float32", "float16", "uint8")

# The floats of each dtype, little-endian on every machine; of uint8 those that rows are between.
FLOATS = {"float32": "<f4", "float16": "<f2", "uint8": "<f2"}

_STEPS = 255


def largest(dtype: str) -> float:
    """The largest number that a dtype holds."""
    return float(np.finfo(FLOATS[dtype]).max)


def check_values(
    name: str, shape: tuple[int, ...], array: Any, first_example: int = 0
) -> np.ndarray:
    """Return an array as float32 or float64 if it holds finite numbers.

    Args:
        name: the tensor's name, for messages.
        shape: its shape for one example.
        array: of shape `(examples, *shape)`.
        first_example: the number of the first of them.

    Raises:
        ValueError: if the shape is another, or a value is NaN or infinite.
    """
    values = np.asarray(array)
    if values.ndim == 0 or values.shape[1:] != shape:
        raise ValueError(
            problem(
                f"{name!r} of shape {values.shape}",
                f"({', '.join(map(str, ('examples', *shape)))})",
                "give all batches the shape of the first",
            )
        )
    if values.dtype.name not in ("float32", "float64"):
        values = values.astype("float32")
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(
            problem(
                f"NaN or infinite values in {name!r} of example {_first(~finite, first_example)}",
                "finite numbers",
                "look at what the teacher says of this example: check its weights, and that the "
                "data have the range and dtype it was trained on",
            )
        )
    return values


def check_reach(name: str, dtype: str, sizes: np.ndarray, first_example: int = 0) -> None:
    """Check that a dtype holds numbers of these sizes.

    Raises:
        ValueError: if one is beyond it.
    """
    beyond = sizes > largest(dtype)
    if beyond.any():
        raise ValueError(
            problem(
                f"the value {sizes[beyond][0]:g} in {name!r} of example "
                f"{_first(beyond, first_example)} for dtype={dtype!r}",
                f"numbers up to {largest(dtype):g}",
                "store with dtype='float32'",
            )
        )


def rounded_up(values: np.ndarray) -> np.ndarray:
    """The least float16 numbers that are not below some values; none is beyond float16."""
    nearest = values.astype("<f2")
    next_up = np.nextafter(nearest, np.float16(largest("float16")))
    return np.where(nearest < values, next_up, nearest).astype("<f2")


def rounded_down(values: np.ndarray) -> np.ndarray:
    """The greatest float16 numbers that are not above some values; none is beyond float16."""
    return -rounded_up(-values)


def to_steps(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """On which of 255 steps from `low` to `high` each value is nearest.

    Args:
        values: of shape `(..., row)`.
        low: float16 of shape `(...)`, not above any of the row.
        high: float16 of shape `(...)`, not below any of the row.
    """
    start, step = _start_and_step(low, high)
    return np.rint((values - start) / np.where(step > 0, step, np.float32(1))).astype("uint8")


def from_steps(steps: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The float32 values on these steps, see `to_steps`."""
    start, step = _start_and_step(low, high)
    return start + step * steps


def _first(found: np.ndarray, first_example: int) -> int:
    """The number of the first example in which something was found."""
    return first_example + int(np.argmax(found.reshape(len(found), -1).any(axis=-1)))


def _start_and_step(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = low.astype("float32")[..., None]
    return start, (high.astype("float32")[..., None] - start) / np.float32(_STEPS)
