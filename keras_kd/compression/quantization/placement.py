"""The places where TFLite rounds to integers, which quantization-aware training imitates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_kd._four_bits import WITHOUT_4_BITS
from keras_kd.compression.bridge.graph import Call, Graph, Slot
from keras_kd.compression.layers import Rounding, class_of, row_of

# The operators of quantized kernels that do not become a convolution or a dense layer of the file.
_OPERATORS = {"depthwise_kernel": "DEPTHWISE_CONV_2D", "Conv2DTranspose": "TRANSPOSE_CONV"}
# Functions with a fixed range in TFLite.
_FIXED_RANGE = frozenset({"linear", "sigmoid", "softmax", "tanh"})


@dataclass(frozen=True)
class Placement:
    """What of one layer is quantized.

    Attributes:
        kind: what can be.
        weights: the names of its weights that are, and how many axes have ranges of their own.
        between: whether what passes between the halves of a separable convolution is.
        activation: whether what its activation takes and gives is.
        output: whether its output is.
        note: why something stays in float, or where it is quantized instead.
    """

    kind: Rounding
    weights: Mapping[str, int] = field(default_factory=dict)
    between: bool = False
    activation: bool = False
    output: bool = False
    note: str = ""

    @property
    def is_quantized(self) -> bool:
        """Whether anything is."""
        return bool(self.weights) or self.activation or self.output


def kind_of(layer: Any) -> Rounding:
    """What can be done with a layer of either Keras, judged by its class."""
    # Operations between Keras 3 layers become layers of one class in tf_keras.
    is_operation = isinstance(layer, keras.Operation) and not isinstance(layer, keras.layers.Layer)
    if is_operation or type(layer).__name__ in ("Operation", "OperationLayer"):
        return Rounding.OUTPUT_ONLY
    row = row_of(type(layer))
    if row is None:
        return Rounding.FLOAT
    has_fixed_range = row.name == "Activation" and activation_name(layer) in _FIXED_RANGE
    return Rounding.FIXED if has_fixed_range else row.rounding


def supports(layer: Any) -> bool:
    """Whether a layer of either Keras need not stay in float."""
    return kind_of(layer) is not Rounding.FLOAT


def place(graph: Graph, chosen: Collection[str], per_channel: bool) -> dict[int, Placement]:
    """Say for each layer of a plain tf_keras graph, by `id`, what of it is quantized.

    Args:
        graph: the student's.
        chosen: the names of the layers that are not to stay in float.
        per_channel: whether kernels get a range for each channel where the converter can take it.
    """
    return _Places(graph, chosen, per_channel).found()


def bits_of_kernel(layer: Any, path: str, asked: int) -> int:
    """How many bits a kernel gets in training: 8 where no runtime has 4 for its operator.

    Args:
        layer: a layer of either Keras whose kernels are quantized.
        path: the name of the kernel in it.
        asked: the bits of the other kernels.
    """
    operator = _OPERATORS.get(path) or _OPERATORS.get(class_of(layer).__name__)
    return 8 if asked <= 4 and operator in WITHOUT_4_BITS else asked


def inputs_to_quantize(graph: Graph, placements: Mapping[int, Placement]) -> list[int]:
    """The positions of the inputs that a quantized layer reads, directly or passed on by others."""
    reading: set[Slot] = set()
    for call in reversed(graph.calls):
        place = placements[id(call.layer)]
        if place.is_quantized or (place.kind is Rounding.HANDS_ON and reading & set(call.results)):
            reading.update(call.operands())
    return [
        position
        for position, spec in enumerate(graph.input_specs)
        if spec.slot in reading and "float" in spec.dtype
    ]


def activation_name(layer: Any) -> str:
    """The name of a layer's activation; "linear" for a layer without."""
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else function_name(activation)


def function_name(function: Any) -> str:
    """The name of one of Keras' own functions; users' functions may go by the same names."""
    name = getattr(function, "__name__", type(function).__name__)
    return f"own {name}" if hasattr(function, "keras_function") else name


class _Places:
    """The layers of a graph, and what comes before and after them."""

    def __init__(self, graph: Graph, chosen: Collection[str], per_channel: bool) -> None:
        self._graph = graph
        self._per_channel = per_channel
        names = graph.names()
        self._kinds = {
            id(layer): kind_of(layer) if names[id(layer)] in chosen else Rounding.FLOAT
            for layer in graph.layers()
        }
        self._calls = Counter(id(call.layer) for call in graph.calls)
        self._readers = Counter(slot for call in graph.calls for slot in call.operands())
        self._readers.update(keras.tree.flatten(graph.outputs))
        self._producers = {slot: call for call in graph.calls for slot in call.results}
        self._reasons = {
            id(call.layer): reason for call in graph.calls if (reason := self._obstacle(call))
        }
        self._chosen = chosen

    def found(self) -> dict[int, Placement]:
        """What is quantized of each layer."""
        # What comes out of these is rounded in the layer after them.
        silent: dict[int, str] = {}
        folded: dict[int, str] = {}
        for call in self._graph.calls:
            for before in self._only_readers_of(call):
                note = self._merged(before.layer, call.layer)
                if note:
                    silent[id(before.layer)] = note
                if note and type(call.layer).__name__ == "BatchNormalization":
                    folded[id(call.layer)] = f"folded into {before.layer.name!r}"
        return {
            id(layer): self._placement(layer, silent.get(id(layer)), folded.get(id(layer)))
            for layer in self._graph.layers()
        }

    def _placement(self, layer: Any, silent: str | None, folded: str | None) -> Placement:
        kind, name = self._kind(layer), type(layer).__name__
        if kind is Rounding.FLOAT:
            return Placement(kind, note=self._reason(layer))
        if kind in (Rounding.HANDS_ON, Rounding.FIXED):
            return Placement(kind, note=kind.value)
        note = silent or ""
        row = row_of(type(layer))
        if kind is Rounding.KERNEL and row is not None:
            return Placement(
                kind,
                weights={
                    row.name_in_tf_keras(kernel.name): (kernel.ranges or 0)
                    if self._per_channel
                    else 0
                    for kernel in row.kernels
                },
                between=len(row.kernels) > 1,
                activation=silent is None,
                note=note,
            )
        if kind is Rounding.OUTPUT_ONLY and not silent:
            note = folded or f"computes in float: TF-MOT has no quantizer for {name}"
        return Placement(kind, output=silent is None, note=note)

    def _merged(self, before: Any, after: Any) -> str | None:
        """Where the output of `before` is rounded instead, if `after` makes one with it."""
        kinds, names = (self._kind(before), self._kind(after)), (type(before), type(after))
        first, second = (cls.__name__ for cls in names)
        if Rounding.FLOAT in kinds or self._calls[id(before)] > 1 or self._calls[id(after)] > 1:
            return None
        is_linear = activation_name(before) == "linear"
        if second == "BatchNormalization":
            folds = kinds[0] is Rounding.KERNEL and is_linear and _on_last_axis(after)
            return f"folded with {after.name!r}" if folds else None
        if _is_fused_relu(after):
            fuses = kinds[0] is Rounding.KERNEL or first in ("Add", "BatchNormalization")
            return f"rounded after {after.name!r}" if fuses and is_linear else None
        if second == "Concatenate":
            is_rounded_last = kinds[0] in (Rounding.OUTPUT, Rounding.OUTPUT_ONLY) or (
                kinds[0] is Rounding.KERNEL and activation_name(before) in ("linear", "relu")
            )
            return f"rounded after {after.name!r}" if is_rounded_last else None
        return None

    def _only_readers_of(self, call: Call) -> list[Call]:
        """The calls whose one result only `call` reads."""
        return [
            self._producers[slot]
            for slot in call.operands()
            if slot in self._producers and self._readers[slot] == 1
        ]

    def _kind(self, layer: Any) -> Rounding:
        return Rounding.FLOAT if id(layer) in self._reasons else self._kinds[id(layer)]

    def _obstacle(self, call: Call) -> str | None:
        """Why a layer must stay in float because of how it is called."""
        if self._kinds[id(call.layer)] in (Rounding.FLOAT, Rounding.HANDS_ON, Rounding.FIXED):
            return None
        if len(call.results) != 1:
            return "it has several outputs"
        if len(call.arguments[0]) != 1:
            return "it is called with several arguments"
        inputs, outputs = (
            keras.tree.flatten(tensors)
            for tensors in (call.layer.get_input_at(0), call.layer.get_output_at(0))
        )
        if not all(tensor.dtype.is_floating for tensor in inputs):
            return "it reads integers"
        return None if outputs[0].dtype.is_floating else "it gives integers"

    def _reason(self, layer: Any) -> str:
        if id(layer) in self._reasons:
            return self._reasons[id(layer)]
        row = row_of(class_of(layer))
        if row is not None and row.no_quantizer:
            return row.no_quantizer
        if kind_of(layer) is Rounding.FLOAT:
            return f"TF-MOT does not know {class_of(layer).__name__}"
        return "it was not chosen"


def _is_fused_relu(layer: Any) -> bool:
    name = type(layer).__name__
    if name == "Activation":
        return activation_name(layer) in ("relu", "relu6")
    if name != "ReLU":
        return False
    no_slope = not layer.negative_slope and not layer.threshold
    return bool(no_slope and (layer.max_value is None or layer.max_value == 6))


def _on_last_axis(normalization: Any) -> bool:
    rank = len(normalization.get_input_at(0).shape)
    axes = keras.tree.flatten(normalization.axis)
    return [axis % rank for axis in axes] == [rank - 1]
