"""How channels run through the layers of a graph.

A rule maps, for one class of layers, the channels (positions along the last axis) of its inputs to
those of its output. What is computed for the channels is not part of the rules: a `Domain` does it,
with an array of one entry per channel for each tensor.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_kd.compression.bridge.graph import Call, Graph, Slot
from keras_kd.compression.bridge.operations import Operation
from keras_kd.compression.bridge.weights import weight_name
from keras_kd.compression.layers import KernelRow, row_of

Shape = tuple[int | None, ...]

# Every rule takes the domain, the layer, the channels and the shapes of its inputs and the shape of
# its output, and gives the channels of the output, or None where they are unknown.
Rule = Callable[[Any, Any, list[Any], list[Shape], Shape], Any]


class Domain(Protocol):
    """What is computed for channels: one entry per channel, in an array for each tensor."""

    @abstractmethod
    def opaque(self, operands: Sequence[np.ndarray | None], size: int | None) -> Any:
        """Nothing is known of `size` channels, made somehow from all of the operands."""

    @abstractmethod
    def carried(self, layer: Any, weight: str, axis: int, channels: np.ndarray) -> np.ndarray:
        """The layer applies to each of the channels its own entry along `axis` of a weight."""

    @abstractmethod
    def mixed(self, layer: Any, kernel: KernelRow, channels: np.ndarray) -> np.ndarray:
        """The layer makes new channels, each a sum over all those it reads."""

    @abstractmethod
    def merged(self, layer: Any, several: Sequence[np.ndarray]) -> np.ndarray:
        """The layer makes each channel from one channel of each of several tensors."""

    @abstractmethod
    def spread(self, channels: np.ndarray, size: int) -> np.ndarray:
        """The only channel of a tensor is used for each of `size` channels of another."""

    @abstractmethod
    def sized(self, layer: Any, option: str, channels: np.ndarray) -> None:
        """An option of the layer holds the number of the channels."""

    @abstractmethod
    def finished(self, slot: Slot, channels: np.ndarray) -> np.ndarray:
        """What is known of the channels of a tensor, now that it is known which tensor it is."""


def shapes_of(graph: Graph) -> dict[Slot, Shape]:
    """The shape of every tensor of a Keras 3 graph, batch first."""
    specs = {spec.slot: keras.KerasTensor(spec.shape, spec.dtype) for spec in graph.input_specs}
    for call in graph.calls:
        arguments: Any = keras.tree.map_structure(
            lambda leaf: specs[leaf] if isinstance(leaf, Slot) else leaf, call.arguments
        )
        args, kwargs = arguments
        # Calling a layer of the student would leave a trace in it; an operation here is a copy.
        is_layer = isinstance(call.layer, keras.layers.Layer)
        compute = call.layer.compute_output_spec if is_layer else call.layer
        results = keras.tree.flatten(compute(*args, **kwargs))
        specs.update(zip(call.results, results, strict=True))
    return {slot: tuple(spec.shape) for slot, spec in specs.items()}


def follow(graph: Graph, shapes: Mapping[Slot, Shape], domain: Domain) -> dict[Slot, Any]:
    """Ask `domain` about the channels of every tensor; None for those of unknown number."""
    channels = {
        spec.slot: domain.opaque((), _channel_count(spec.shape)) for spec in graph.input_specs
    }
    for call in graph.calls:
        results = _follow_call(call, channels, shapes, domain)
        for slot, result in zip(call.results, results, strict=True):
            channels[slot] = None if result is None else domain.finished(slot, result)
    domain.opaque([channels[slot] for slot in keras.tree.flatten(graph.outputs)], None)
    return channels


def _follow_call(
    call: Call, channels: Mapping[Slot, Any], shapes: Mapping[Slot, Shape], domain: Domain
) -> list[Any]:
    operands = [channels[slot] for slot in call.operands()]
    rule = _rule_of(call)
    if rule is not None and all(operand is not None for operand in operands):
        inputs = [shapes[slot] for slot in call.operands()]
        result = rule(domain, call.layer, operands, inputs, shapes[call.results[0]])
        if result is not None:
            return [result]
    sizes = [_channel_count(shapes[slot]) for slot in call.results]
    return [domain.opaque(operands, size) for size in sizes]


def _rule_of(call: Call) -> Rule | None:
    """The rule for a layer that is called on a tensor, or a list of tensors, only."""
    args, kwargs = call.arguments
    has_others = any(isinstance(leaf, Slot) for leaf in keras.tree.flatten(kwargs))
    if len(args) != 1 or has_others:
        return None
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        return None
    if isinstance(call.layer, Operation):
        return _operate
    row = row_of(type(call.layer))
    return None if row is None or row.channels is None else _RULES[row.channels]


def _channel_count(shape: Shape) -> int | None:
    return shape[-1] if len(shape) > 1 else None


def _pass(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    return operands[0]


def _activate(
    domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape
) -> Any:
    return operands[0] if _is_elementwise(layer.activation) else None


def _rescale(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    is_number = np.ndim(layer.scale) == 0 and np.ndim(layer.offset) == 0
    return operands[0] if is_number else None


def _permute(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    return operands[0] if layer.dims[-1] == len(inputs[0]) - 1 else None


def _scale(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    """Weights along the last axis, one entry per channel: normalization and PReLU."""
    axis = getattr(layer, "axis", -1)
    if axis not in (-1, len(inputs[0]) - 1):
        return None
    channels = operands[0]
    for weight in layer.weights:
        if weight.shape[-1] == len(channels):
            channels = domain.carried(layer, weight_name(weight), -1, channels)
        elif weight.shape[-1] != 1:
            return None
    return channels


def _depthwise(
    domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape
) -> Any:
    channels = domain.carried(layer, "kernel", -2, operands[0])
    channels = np.repeat(channels, layer.depth_multiplier)
    if layer.use_bias:
        channels = domain.carried(layer, "bias", -1, channels)
    return _activated(domain, layer, channels)


def _mix(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    row = row_of(type(layer))
    if row is None or row.mixing is None or row.size is None:
        return None
    known = {*(kernel.name for kernel in row.kernels), "bias"}
    # LoRA and quantization of Keras' own bring weights that are not known here.
    if getattr(layer, "groups", 1) != 1 or not {weight_name(w) for w in layer.weights} <= known:
        return None
    channels = operands[0]
    for first in row.kernels:
        if first.writes:
            continue
        channels = domain.carried(layer, first.name, -2, channels)
        channels = np.repeat(channels, layer.depth_multiplier)
    channels = domain.mixed(layer, row.mixing, channels)
    domain.sized(layer, row.size, channels)
    if layer.use_bias:
        channels = domain.carried(layer, "bias", -1, channels)
    return _activated(domain, layer, channels)


def _merge(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    size = output[-1]
    if size is None:
        return None
    spread = [x if len(x) == size else domain.spread(x, size) for x in operands]
    return domain.merged(layer, spread)


def _operate(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    """`x + y`, `2 * x`, `keras.ops.relu(x)`."""
    kind = layer.kind.__name__
    is_known = layer.kind.__module__.startswith("keras.src.ops.")
    if not is_known or any(np.ndim(constant) for constant in layer.constants()):
        return None
    if kind in _MERGING_OPERATIONS and len(operands) == 2:
        return _merge(domain, layer, operands, inputs, output)
    is_elementwise = kind in (*_MERGING_OPERATIONS, *_ELEMENTWISE_OPERATIONS.split())
    return operands[0] if is_elementwise and len(operands) == 1 else None


def _concatenate(
    domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape
) -> Any:
    if layer.axis in (-1, len(output) - 1):
        return np.concatenate(operands)
    return domain.merged(layer, operands)


def _reshape(domain: Domain, layer: Any, operands: list, inputs: list[Shape], output: Shape) -> Any:
    """Every value keeps its place in the order of all values of an example."""
    before, after = inputs[0][1:], output[1:]
    known = [size for size in before if size is not None]
    if before[-1] == after[-1]:
        channels = operands[0]
    elif len(known) < len(before) or after[-1] is None or None in after:
        return None
    else:
        everywhere = np.broadcast_to(operands[0], known).reshape(-1, after[-1])
        channels = domain.merged(layer, list(everywhere)) if len(everywhere) > 1 else everywhere[0]
    if type(layer).__name__ == "Reshape" and layer.target_shape[-1] != -1:
        domain.sized(layer, "target_shape", channels)
    return channels


def _activated(domain: Domain, layer: Any, channels: np.ndarray) -> np.ndarray:
    if _is_elementwise(layer.activation):
        return channels
    return domain.opaque([channels], len(channels))


def _is_elementwise(activation: Any) -> bool:
    name = getattr(activation, "__name__", "")
    return name in _ELEMENTWISE.split() and activation is getattr(keras.activations, name, None)


_ELEMENTWISE = """
    celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu linear
    log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink softplus softsign squareplus tanh
    tanh_shrink threshold
"""

_MERGING_OPERATIONS = ("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide")
_ELEMENTWISE_OPERATIONS = """
    Abs Absolute Elu Exp Gelu HardSigmoid HardSilu LeakyRelu Negative Relu Relu6 Selu Sigmoid Silu
    Softplus Square Tanh
"""

# By the names in the column `channels` of the table of layers.
_RULES: Mapping[str, Rule] = {
    "activate": _activate,
    "concatenate": _concatenate,
    "depthwise": _depthwise,
    "merge": _merge,
    "mix": _mix,
    "pass": _pass,
    "permute": _permute,
    "rescale": _rescale,
    "reshape": _reshape,
    "scale": _scale,
}
