"""How many different values the weights of a model have, and what that makes of its size."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_model
from keras_kd._tables import aligned
from keras_kd.compression.kernels import CLUSTERABLE, Kernel, is_depthwise, kernels
from keras_kd.compression.layers import WITH_KERNELS
from keras_kd.compression.stripping import unwrapped


@dataclass(frozen=True)
class KernelClusters:
    """One kernel: its different values, and its size in bytes in several forms.

    Attributes:
        layer: the layer's own name.
        kernel: the kernel's name in it.
        weights: how many weights it has.
        values: how many of them are different.
        values_per_channel: the largest number of different weights in one output channel of a
            convolution; None for other layers.
        float_bytes: as it is.
        indexed_bytes: each weight as an index of ceil(log2(values)) bits into a list of the values,
            which is included; with a list for each channel, or as it is, where that is smaller.
        entropy_bytes: the same with the entropy of the indices instead: what no code for single
            weights, such as Huffman's, can fall below.
        gzip_bytes: what gzip makes of the floats, as of a file that holds them.
    """

    layer: str
    kernel: str
    weights: int
    values: int
    values_per_channel: int | None
    float_bytes: int
    indexed_bytes: int
    entropy_bytes: int
    gzip_bytes: int


@dataclass(frozen=True)
class Clusters:
    """The values and sizes of the kernels of a model; `print` shows a table."""

    kernels: tuple[KernelClusters, ...]

    @property
    def layers(self) -> Mapping[str, int]:
        """The largest number of different values in a kernel of each layer, by its own name."""
        largest: dict[str, int] = {}
        for kernel in self.kernels:
            largest[kernel.layer] = max(kernel.values, largest.get(kernel.layer, 0))
        return largest

    @property
    def float_bytes(self) -> int:
        """The size of all kernels as they are."""
        return sum(kernel.float_bytes for kernel in self.kernels)

    @property
    def indexed_bytes(self) -> int:
        """The size of all kernels as indices and lists of values."""
        return sum(kernel.indexed_bytes for kernel in self.kernels)

    @property
    def entropy_bytes(self) -> int:
        """The smallest size of all kernels with any code for single weights."""
        return sum(kernel.entropy_bytes for kernel in self.kernels)

    @property
    def gzip_bytes(self) -> int:
        """The size of all kernels after gzip, each for itself."""
        return sum(kernel.gzip_bytes for kernel in self.kernels)

    def __str__(self) -> str:
        rows = [*map(_cells, self.kernels)]
        weights = sum(kernel.weights for kernel in self.kernels)
        rows.append(("overall", "", _count(weights), "", "", *_sizes(self)))
        return aligned(_HEADINGS, rows, left=2)


_HEADINGS = (
    *("layer", "kernel", "weights", "values", "channel"),
    *("bytes", "indexed", "entropy", "gzip"),
)


def clusters(model: Any) -> Clusters:
    """Count the different values in the kernels of a model, and what they could be stored in.

    Kernels are the weights that `cluster` acts on, in frozen layers too. Depthwise kernels, which
    are clustered only if asked for, do not count unless they share values.

    A `.tflite` file holds floats or integers, never indices: clustering does not shrink the file,
    but what gzip, a package or an update makes of it.

    Args:
        model: a model of either Keras, plain, pruned, clustered or quantization-aware, of which
            the float weights are measured that `strip` gives.

    Raises:
        ValueError: if `model` is not a model or has no kernels.

    Example:
        >>> print(clusters(student))
        layer    kernel  weights  values  channel   bytes  indexed  entropy    gzip
        conv     kernel       72      16        7     288      100       93     132
        logits   kernel    3,380      16            13,520    1,754    1,528   2,017
        overall            3,452                    13,808    1,854    1,621   2,149
    """
    check_model("model", model)
    measured = tuple(_measured(model))
    if not measured:
        raise problem(
            f"model {model.name!r} without a layer that can be clustered",
            "one of " + ", ".join(WITH_KERNELS),
            "measure a model that has one",
        )
    return Clusters(measured)


def _measured(model: Any) -> Iterator[KernelClusters]:
    for layer in model.layers:
        if is_model(layer):
            yield from _measured(layer)
            continue
        plain, weights = unwrapped(layer)
        for kernel in kernels(plain, CLUSTERABLE):
            value = np.asarray(weights[kernel.name])
            if not is_depthwise(plain, CLUSTERABLE) or len(np.unique(value)) < value.size:
                yield _measure(plain, kernel, value)


def _measure(layer: Any, found: Kernel, kernel: np.ndarray) -> KernelClusters:
    axis = found.channel_axis
    channels = None if axis is None else np.moveaxis(kernel, axis, 0)
    whole = _Codes([kernel])
    split = whole if channels is None else _Codes(channels)
    return KernelClusters(
        layer=layer.name,
        kernel=found.name,
        weights=kernel.size,
        values=whole.most_values,
        values_per_channel=None if channels is None else split.most_values,
        float_bytes=kernel.nbytes,
        indexed_bytes=min(kernel.nbytes, whole.indexed_bytes, split.indexed_bytes),
        entropy_bytes=min(kernel.nbytes, whole.entropy_bytes, split.entropy_bytes),
        gzip_bytes=len(gzip.compress(kernel.tobytes(), mtime=0)),
    )


class _Codes:
    """Groups of weights, each coded with a list of values of its own."""

    def __init__(self, groups: Iterable[np.ndarray]) -> None:
        groups = list(groups)
        self._occurrences = [np.unique(group, return_counts=True)[1] for group in groups]
        self._lists = sum(map(len, self._occurrences)) * groups[0].itemsize

    @property
    def most_values(self) -> int:
        return max(map(len, self._occurrences))

    @property
    def indexed_bytes(self) -> int:
        bits = (counts.sum() * math.ceil(math.log2(len(counts))) for counts in self._occurrences)
        return self._lists + math.ceil(sum(bits) / 8)

    @property
    def entropy_bytes(self) -> int:
        bits = (np.sum(counts * np.log2(counts.sum() / counts)) for counts in self._occurrences)
        return self._lists + math.ceil(sum(bits) / 8)


def _cells(kernel: KernelClusters) -> tuple[str, ...]:
    numbers = map(_count, (kernel.weights, kernel.values, kernel.values_per_channel))
    return (kernel.layer, kernel.kernel, *numbers, *_sizes(kernel))


def _sizes(measured: KernelClusters | Clusters) -> tuple[str, ...]:
    names = ("float_bytes", "indexed_bytes", "entropy_bytes", "gzip_bytes")
    return tuple(_count(getattr(measured, name)) for name in names)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
