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

    A part is the layer itself, one inside it, or the cell of a recurrent one.
    """
    seen = set()
    for part in layer._flatten_layers():
        known = {**CLUSTERABLE_WEIGHTS, **DEPTHWISE_WEIGHTS}.get(type(part).__name__, ())
        names = [name for name in known if hasattr(part, name)]
        if names and id(part) not in seen:
            seen.add(id(part))
            yield from ((part, name) for name in names)


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
    if name not in CLUSTERABLE_WEIGHTS or "Conv" not in name:
        return None
    return -2 if name.endswith("Transpose") else -1
