"""Size, memory and time of a student on a device, measured on its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_kd import compression, tflite
from keras_kd._checks import problem
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.kernels import kernels
from keras_kd.compression.pruning.blocks import rebuilt
from keras_kd.compression.quantization.training import set_ranges_apart
from keras_kd.devices import Device, bytes_as_text
from keras_kd.tflite.microcontroller.operators import CORE_BYTES, kernel_bytes

# Ranges of activations do not change the size of a file; a few examples give them.
_EXAMPLES = 32
_RUNS = 50


@dataclass(frozen=True)
class Cost:
    """What a file takes on a device.

    Attributes:
        bytes: the size of the `.tflite`.
        flash_bytes: what counts against the device's flash: the file, on a microcontroller with
            TFLM's core and the kernels of its operators; after gzip for `compressed` devices.
        arena_bytes: the tensor arena in TFLM; None for other targets, or without tflite-micro.
        latency: milliseconds in LiteRT on one thread of this computer; None on microcontrollers.
        parameters: how many weights the student has.
    """

    bytes: int
    flash_bytes: int
    arena_bytes: int | None
    latency: float | None
    parameters: int

    def misses(self, device: Device) -> dict[str, float]:
        """How many times each limit that is not kept is exceeded, by "flash", "ram", "latency"."""
        pairs = {
            "flash": (self.flash_bytes, device.flash_bytes),
            "ram": (self.arena_bytes, device.ram_bytes),
            "latency": (self.latency, device.latency),
        }
        return {
            name: taken / limit
            for name, (taken, limit) in pairs.items()
            if limit is not None and taken is not None and taken > limit
        }

    def to_dict(self) -> dict[str, Any]:
        """The numbers by their names."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Cost:
        """The cost that `to_dict` has written."""
        return cls(**numbers)


def missed_text(misses: Mapping[str, float], cost: Cost, device: Device) -> str:
    """For people: "flash 81.0 KB of 64.0 KB, RAM 40.1 KB of 32.0 KB"; empty where all fits."""
    taken = {
        "flash": (cost.flash_bytes, device.flash_bytes, "flash"),
        "ram": (cost.arena_bytes, device.ram_bytes, "RAM"),
    }
    parts = [
        f"{heading} {_of(value or 0, limit or 0)}"
        for name, (value, limit, heading) in taken.items()
        if name in misses
    ]
    if "latency" in misses:
        parts.append(f"latency {cost.latency:.3g} of {device.latency:.3g} ms")
    return ", ".join(parts)


def _of(taken: int, limit: int) -> str:
    """Two sizes in a unit in which they differ."""
    texts = bytes_as_text(taken), bytes_as_text(limit)
    return " of ".join(texts) if texts[0] != texts[1] else f"{taken:,} of {limit:,} bytes"


def check_measurable(device: Device) -> None:
    """Refuse what cannot be measured here.

    Raises:
        ImportError: if RAM counts and tflite-micro is not installed.
    """
    if device.ram_bytes is not None and not tflite.microcontroller.is_installed():
        raise problem(
            f"a device with {bytes_as_text(device.ram_bytes)} of RAM without tflite-micro",
            "TensorFlow Lite Micro, in which the arena of each student is measured",
            "pip install 'keras-kd[micro]', or leave ram out",
            kind=ImportError,
        )


@dataclass(frozen=True)
class Maker:
    """Makes files for one device.

    Attributes:
        device: where they run.
        x: training inputs, an array or a dict of arrays by input name.
        sparsity: the share of zeros of a pruned student, where the device counts compressed bytes.
    """

    device: Device
    x: Any
    sparsity: float = 0.0

    def examples(self, count: int) -> Any:
        """The first `count` of the inputs."""
        return keras.tree.map_structure(lambda array: array[:count], self.x)

    def aware(self, student: keras.Model, count: int) -> Any:
        """The student with quantizers, their ranges measured on so many examples.

        A student of which no quantization-aware form can be made is returned as it is: it is
        quantized when it is converted.
        """
        try:
            return compression.quantize_aware(student, self.examples(count))
        except ValueError:
            return student

    def file(self, student: Any, count: int, **options: Any) -> tuple[tflite.TFLiteModel, bool]:
        """The file of a student that `aware` has returned, perhaps trained.

        Returns:
            The file, and whether ranges were read from examples.

        Raises:
            ValueError: if it cannot be converted, or the file computes something else.
        """
        target = self.device.target
        if not isinstance(student, keras.Model):
            try:
                return tflite.convert(student, "int8", None, target, **options), False
            except ValueError:
                # Layers that stay in float while the student trains need examples for their ranges.
                pass
        return tflite.convert(student, "int8", self.examples(count), target, **options), True

    def cost_of_untrained(self, student: keras.Model, seed: int) -> Cost:
        """What the file of a student will take at most once it is trained.

        Its weights are made distinct, its quantizers are added as for the last training with ranges
        that differ, it is converted, and the real file is measured. It is what the trained file
        takes, too, unless a map of a Concatenate ends in the range of the whole: that needs no
        QUANTIZE.

        Raises:
            ValueError: if it cannot be converted or does not run on the target.
        """
        copy = with_distinct_values(student, seed)
        if self.sparsity:
            _zero_smallest(copy, self.sparsity)
        aware = self.aware(copy, _EXAMPLES)
        if not isinstance(aware, keras.Model):
            set_ranges_apart(aware)
        model, _ = self.file(aware, _EXAMPLES)
        return self.cost(model, copy.count_params())

    def cost(self, model: tflite.TFLiteModel, parameters: int) -> Cost:
        """What a file takes.

        Args:
            model: converted for the device's target.
            parameters: how many weights the student has.
        """
        arena = latency = None
        flash = model.compressed_size if self.device.compressed else model.size
        if self.device.target == "microcontroller":
            if self.device.kernels is not None:
                kernels = kernel_bytes(model.operators, cmsis_nn=self.device.kernels == "cmsis_nn")
                flash += CORE_BYTES + kernels
            if tflite.microcontroller.is_installed():
                first = {tensor.name: _zeros(tensor) for tensor in model.inputs}
                arena = tflite.microcontroller.run_stored(model, first).arena_bytes
        else:
            latency = _milliseconds(model)
        return Cost(model.size, flash, arena, latency, parameters)


def _milliseconds(model: tflite.TFLiteModel) -> float:
    """The median time of one example on one thread."""
    benchmark = model.benchmark(_RUNS, threads=1, kernels="xnnpack", memory=False)
    return benchmark.median / 1000


def _zeros(tensor: tflite.TensorInfo) -> np.ndarray:
    return np.zeros([size or 1 for size in tensor.shape], tensor.dtype)


def _zero_smallest(student: keras.Model, share: float) -> None:
    """Set the smallest weights of each kernel to zero, as pruning will."""
    for layer in student.layers:
        for kernel in kernels(layer):
            value = np.asarray(kernel.weight)
            limit = np.quantile(np.abs(value), share)
            kernel.weight.assign(np.where(np.abs(value) > limit, value, 0))


def with_distinct_values(student: keras.Model, seed: int) -> keras.Model:
    """A copy of a student whose weights all differ a little, as after training.

    A file stores equal buffers once, such as biases that are all zero.
    """
    copy = rebuilt(graphs.read(student))
    random = np.random.default_rng(seed)
    # What does not train, such as the mean of a Normalization, stays as it is.
    trained = [layer for layer in copy.layers if layer.trainable_weights]
    for weight in (weight for layer in trained for weight in layer.weights):
        value = np.asarray(weight)
        if not np.issubdtype(value.dtype, np.floating):
            continue
        # Variances stay above 0, and nothing becomes so large that outputs lose their meaning.
        scale = 0.05 * (float(np.std(value)) or max(float(np.abs(value).mean()), 0.1))
        noise = random.uniform(0, scale, value.shape)
        weight.assign((value + noise).astype(value.dtype))
    return copy
