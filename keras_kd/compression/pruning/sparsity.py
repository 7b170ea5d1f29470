"""How many of the weights that pruning acts on are zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_model
from keras_kd._tables import aligned
from keras_kd.compression.kernels import is_depthwise, kernels
from keras_kd.compression.layers import WITH_KERNELS
from keras_kd.compression.stripping import unwrapped


@dataclass(frozen=True)
class KernelSparsity:
    """One kernel: the layer's own name, the kernel's name in it, its weights and the zeros."""

    layer: str
    kernel: str
    weights: int
    zeros: int

    @property
    def share(self) -> float:
        """The share of zeros, between 0 and 1."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class Sparsity:
    """The zeros in the kernels of a model; `print` shows a table."""

    kernels: tuple[KernelSparsity, ...]

    @property
    def weights(self) -> int:
        """How many weights all kernels have."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(kernel.zeros for kernel in self.kernels)

    @property
    def overall(self) -> float:
        """The share of zeros in all kernels together, between 0 and 1."""
        return self.zeros / self.weights

    @property
    def layers(self) -> Mapping[str, float]:
        """The share of zeros in the kernels of each layer, by the layer's own name."""
        rows: dict[str, list[KernelSparsity]] = {}
        for kernel in self.kernels:
            rows.setdefault(kernel.layer, []).append(kernel)
        return {name: Sparsity(tuple(of_layer)).overall for name, of_layer in rows.items()}

    def __str__(self) -> str:
        headings = ("layer", "kernel", "weights", "zeros", "share")
        rows = [
            (row.layer, row.kernel, str(row.weights), str(row.zeros), f"{row.share:.1%}")
            for row in self.kernels
        ]
        overall = ("overall", "", str(self.weights), str(self.zeros), f"{self.overall:.1%}")
        return aligned(headings, [*rows, overall], left=2)


def sparsity(model: Any) -> Sparsity:
    """Measure the share of zeros in the kernels of a model.

    Kernels are the weights that `prune` can act on: those of Dense, EinsumDense and convolution
    layers, pointwise ones of separable convolutions, those of recurrent layers and attention (the
    recurrent ones too) and embeddings, also inside custom layers, or what these list in
    `get_prunable_weights`. Biases and normalizations do not count, nor do depthwise kernels, which
    are only pruned if asked for, as long as they have no zero.

    Args:
        model: a model of either Keras, plain, pruned, clustered or quantization-aware.

    Raises:
        ValueError: if `model` is not a model or has no kernels.

    Example:
        >>> print(sparsity(student))
        layer    kernel  weights  zeros  share
        conv     kernel       36     29  80.6%
        logits   kernel      640    512  80.0%
        overall              676    541  80.0%
    """
    check_model("model", model)
    rows = tuple(
        KernelSparsity(layer, kernel, value.size, int(np.sum(value == 0)))
        for layer, kernel, value in _values(model)
    )
    if not rows:
        raise problem(
            f"model {model.name!r} without a layer that can be pruned",
            "one of " + ", ".join(WITH_KERNELS),
            "measure a model that has one",
        )
    return Sparsity(rows)


def prunable_weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The own name of each layer with kernels, with the value of each of its kernels."""
    for layer, _, value in _values(model):
        yield layer, value


def _values(model: Any) -> Iterator[tuple[str, str, np.ndarray]]:
    """Layer, kernel and value of each kernel as it is after `strip`."""
    for layer in model.layers:
        if is_model(layer):
            yield from _values(layer)
            continue
        plain, weights = unwrapped(layer)
        for kernel in kernels(plain):
            value = np.asarray(weights[kernel.name])
            if not is_depthwise(plain) or np.any(value == 0):
                yield plain.name, kernel.name, value
