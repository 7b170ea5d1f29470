"""How many of the weights that pruning acts on are zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import check_model
from keras_kd.compression.bridge.translation import weight_name

# The weight that TF-MOT prunes in each class of layers; it never prunes a depthwise kernel.
PRUNABLE_WEIGHTS: Mapping[str, str] = {
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "Conv3D": "kernel",
    "Conv3DTranspose": "kernel",
    "Dense": "kernel",
    "Embedding": "embeddings",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}


@dataclass(frozen=True)
class Sparsity:
    """The share of zeros: `overall`, and in `layers` by the layers' own names."""

    overall: float
    layers: Mapping[str, float]

    def __str__(self) -> str:
        lines = [f"{share:7.1%}  {name}" for name, share in self.layers.items()]
        return "\n".join([*lines, f"{self.overall:7.1%}  overall"])


def sparsity(model: Any) -> Sparsity:
    """Measure the share of zeros in the weights that pruning acts on.

    These are the kernels of Dense and convolution layers, the pointwise kernels of separable
    convolutions and the embeddings; depthwise kernels, biases and normalizations do not count.

    Args:
        model: a model of either Keras, plain, pruned or quantization-aware.

    Raises:
        ValueError: if `model` is not a model or has no such weights.
    """
    check_model("model", model)
    kernels = dict(prunable_weights(model))
    if not kernels:
        raise ValueError(
            problem(
                f"model {model.name!r} without a layer that can be pruned",
                "one of " + ", ".join(PRUNABLE_WEIGHTS),
                "measure a model that has one",
            )
        )
    zeros = {name: int(np.sum(kernel == 0)) for name, kernel in kernels.items()}
    return Sparsity(
        overall=sum(zeros.values()) / sum(kernel.size for kernel in kernels.values()),
        layers={name: zeros[name] / kernel.size for name, kernel in kernels.items()},
    )


def prunable_weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The own name of each layer that can be pruned, and the value of its prunable weight."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from prunable_weights(layer)
            continue
        inner = getattr(layer, "layer", layer)
        wanted = PRUNABLE_WEIGHTS.get(type(inner).__name__)
        masks = {
            id(weight): np.asarray(mask) for weight, mask, _ in getattr(layer, "pruning_vars", ())
        }
        for weight in layer.weights:
            if weight_name(weight) == wanted:
                # A checkpoint may have been written between an update and the masking after it.
                yield inner.name, np.asarray(weight) * masks.get(id(weight), 1)
