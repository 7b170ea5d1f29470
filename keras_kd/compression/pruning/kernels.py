"""Which weights of a layer are kernels: what pruning acts on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from keras_kd.compression.bridge.weights import named_weights
from keras_kd.compression.pruning.patterns import Axes


@dataclass(frozen=True)
class Kernel:
    """A weight to prune.

    `name` is unique in the layer (see `named_weights`). `axes` is None where it is not known how
    the kernel is multiplied.
    """

    name: str
    variable: Any
    axes: Axes | None


def kernels(layer: Any) -> list[Kernel]:
    """The kernels of a built layer of either Keras; none where there is nothing to prune.

    A layer of another class than those in `FAMILIES` says with `get_prunable_weights()`, the
    protocol of TF-MOT, what can be pruned.
    """
    plain, family = _plain(layer), _family(layer)
    axes = _axes_of_unknown if family is None else family.axes
    weights = named_weights(layer)
    return [
        Kernel(
            name,
            # A layer of tf_keras that holds one of Keras 3 has its variables' own variables.
            weights[name] if plain is layer else weights[name].value,
            axes(plain, weights[name]),
        )
        for name in kernel_names(layer, weights)
    ]


def kernel_names(layer: Any, names: Collection[str]) -> list[str]:
    """Which of the `names` of a layer's weights are those of kernels."""
    plain, family = _plain(layer), _family(layer)
    if family is not None:
        return [name for name in names if name.split("/")[-1] in family.names]
    if not names or not hasattr(plain, "get_prunable_weights"):
        return []
    wanted = {id(weight) for weight in plain.get_prunable_weights()}
    return [name for name, weight in named_weights(plain).items() if id(weight) in wanted]


def is_depthwise(layer: Any) -> bool:
    """Whether the layer's kernel has a single input per output, so few weights that each counts."""
    return _family(layer) is _DEPTHWISE


@dataclass(frozen=True)
class _Family:
    """Layers with kernels of the same names and roles of axes."""

    names: frozenset[str]
    axes: Callable[[Any, Any], Axes | None]


def _axes_of_unknown(layer: Any, kernel: Any) -> Axes | None:
    return _matrix(layer, kernel) if len(kernel.shape) == 2 else None


def _matrix(layer: Any, kernel: Any) -> Axes:
    rank = len(kernel.shape)
    return Axes(tuple(range(rank - 2)), (rank - 2,), (rank - 1,))


def _transposed_matrix(layer: Any, kernel: Any) -> Axes:
    rank = len(kernel.shape)
    return Axes(tuple(range(rank - 2)), (rank - 1,), (rank - 2,))


def _table(layer: Any, kernel: Any) -> Axes:
    # TFLite stores what belongs to one word in a row, as it stores the inputs of an output.
    return Axes((), (1,), (0,))


def _channels(layer: Any, kernel: Any) -> Axes:
    rank = len(kernel.shape)
    return Axes(tuple(range(rank - 2)), (rank - 2, rank - 1), ())


def _einsum(layer: Any, kernel: Any) -> Axes:
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, letters = operands.split(",")

    def axes(in_inputs: bool, in_output: bool) -> tuple[int, ...]:
        return tuple(
            axis
            for axis, letter in enumerate(letters)
            if (letter in inputs, letter in output) == (in_inputs, in_output)
        )

    return Axes(axes(True, True), axes(True, False), axes(False, True))


def _projection(layer: Any, kernel: Any) -> Axes:
    projections = (layer._query_dense, layer._key_dense, layer._value_dense, layer._output_dense)
    [projection] = [each for each in projections if each.kernel is kernel]
    return _einsum(projection, kernel)


_RECURRENT = _Family(frozenset({"kernel", "recurrent_kernel"}), _matrix)
# A tf_keras layer calls it by the longer name.
_DEPTHWISE = _Family(frozenset({"kernel", "depthwise_kernel"}), _channels)
FAMILIES = {
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "Conv3D", "Dense"), _Family(frozenset({"kernel"}), _matrix)
    ),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
        _Family(frozenset({"kernel"}), _transposed_matrix),
    ),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"), _Family(frozenset({"pointwise_kernel"}), _matrix)
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _DEPTHWISE),
    "Embedding": _Family(frozenset({"embeddings"}), _table),
    "EinsumDense": _Family(frozenset({"kernel"}), _einsum),
    "MultiHeadAttention": _Family(frozenset({"kernel"}), _projection),
    **dict.fromkeys(
        (
            *("GRU", "LSTM", "SimpleRNN", "GRUCell", "LSTMCell", "SimpleRNNCell"),
            *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        ),
        _RECURRENT,
    ),
}
# What a layer that calls another one holds it as.
_INSIDE = {
    "Bidirectional": "forward_layer",
    "RNN": "cell",
    "TimeDistributed": "layer",
}


def _plain(layer: Any) -> Any:
    """The layer itself: one that tf_keras does not have is kept inside one of the bridge's."""
    return getattr(layer, "keras_layer", layer)


def _family(layer: Any) -> _Family | None:
    layer = _plain(layer)
    name = type(layer).__name__
    if name in _INSIDE:
        return _family(getattr(layer, _INSIDE[name]))
    if name == "StackedRNNCells":
        families = {id(_family(cell)): _family(cell) for cell in layer.cells}
        return next(iter(families.values())) if len(families) == 1 else None
    return FAMILIES.get(name)
