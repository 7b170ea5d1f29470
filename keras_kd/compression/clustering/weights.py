"""Which weights of a layer can be clustered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Of each class of layers and cells, what is clustered: large kernels, no biases. Layers made of
# others (Bidirectional, RNN, MultiHeadAttention, TimeDistributed) are clustered in their parts.
CLUSTERABLE_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "Conv1D": ("kernel",),
    "Conv1DTranspose": ("kernel",),
    "Conv2D": ("kernel",),
    "Conv2DTranspose": ("kernel",),
    "Conv3D": ("kernel",),
    "Conv3DTranspose": ("kernel",),
    "ConvLSTMCell": ("kernel", "recurrent_kernel"),
    "Dense": ("kernel",),
    "EinsumDense": ("kernel",),
    "Embedding": ("embeddings",),
    "GRUCell": ("kernel", "recurrent_kernel"),
    "LSTMCell": ("kernel", "recurrent_kernel"),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    "SimpleRNNCell": ("kernel", "recurrent_kernel"),
}
# Few weights, each used often: TF-MOT leaves them alone for the loss of accuracy. The first name
# is that of Keras 3.
DEPTHWISE_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "DepthwiseConv1D": ("kernel", "depthwise_kernel"),
    "DepthwiseConv2D": ("kernel", "depthwise_kernel"),
}


def parts(layer: Any) -> Iterator[tuple[Any, str]]:
    """The parts of a layer of either Keras that hold weights to cluster, and the weights' names.

    A part is the layer itself, one inside it, or the cell of a recurrent one. A class of another
    name says with `get_clusterable_weights()`, the protocol of TF-MOT, what can be clustered.
    """
    seen = set()
    for part in getattr(layer, "keras_layer", layer)._flatten_layers():
        if id(part) not in seen:
            seen.add(id(part))
            yield from ((part, name) for name in _names(part))


def _names(part: Any) -> list[str]:
    known = {**CLUSTERABLE_WEIGHTS, **DEPTHWISE_WEIGHTS}.get(type(part).__name__)
    if known is not None:
        return [name for name in known if hasattr(part, name)]
    # Of the class: TF-MOT gives the method to each layer that it wraps.
    if hasattr(type(part), "get_clusterable_weights"):
        return [name for name, _ in part.get_clusterable_weights()]
    return []


def is_clusterable(layer: Any) -> bool:
    """Whether a layer has weights that can be clustered and that train."""
    return layer.trainable and any(True for _ in parts(layer))


def is_clustered_unasked(layer: Any) -> bool:
    """Whether a layer is clustered where the user has chosen none."""
    return is_clusterable(layer) and type(layer).__name__ not in DEPTHWISE_WEIGHTS


def channel_axis(part: Any) -> int | None:
    """The axis of the output channels of a convolution's kernel; None for other weights.

    Kernels have the same axes whether images have their channels first or last.
    """
    name = type(part).__name__
    if name not in CLUSTERABLE_WEIGHTS or "Conv" not in name or name.endswith("Cell"):
        return None
    return -2 if name.endswith("Transpose") else -1
