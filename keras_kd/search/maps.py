"""Smaller maps in a model: an average in front, strides in place of pooling, a smaller last map."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Call, Graph, Slot
from keras_kd.compression.bridge.translation import make_layer, record_of
from keras_kd.compression.bridge.weights import named_weights
from keras_kd.compression.pruning.blocks import Block, without
from keras_kd.compression.pruning.flow import shapes_of

# Fewer pixels than this along a side are a small input already.
_SMALLEST_SIDE = 16
_LAYERS = keras.layers
_IN_FRONT = {3: _LAYERS.AveragePooling1D, 4: _LAYERS.AveragePooling2D}
_POOLINGS = (
    _LAYERS.AveragePooling1D,
    _LAYERS.AveragePooling2D,
    _LAYERS.MaxPooling1D,
    _LAYERS.MaxPooling2D,
)
_CONVOLUTIONS = (
    _LAYERS.Conv1D,
    _LAYERS.Conv2D,
    _LAYERS.DepthwiseConv1D,
    _LAYERS.DepthwiseConv2D,
    _LAYERS.SeparableConv1D,
    _LAYERS.SeparableConv2D,
)
# What may stand between a convolution and the layer that makes its map smaller or flat.
_BETWEEN = (
    _LAYERS.Activation,
    _LAYERS.BatchNormalization,
    _LAYERS.Dropout,
    _LAYERS.ELU,
    _LAYERS.LeakyReLU,
    _LAYERS.ReLU,
)


def can_average(graph: Graph) -> bool:
    """Whether a graph has one input of real numbers, large enough to be averaged over 2x2."""
    shapes = [spec.shape for spec in graph.input_specs]
    return (
        len(shapes) == 1
        and len(shapes[0]) in _IN_FRONT
        and all(size is not None and size >= _SMALLEST_SIDE for size in shapes[0][1:-1])
        and graph.input_specs[0].dtype.startswith("float")
    )


def pooled_convolutions(graph: Graph) -> list[tuple[Call, Call]]:
    """The convolutions with a pooling right behind them, whose strides they can take over."""
    found = []
    for call in graph.calls:
        if isinstance(call.layer, _POOLINGS) and tuple(call.layer.strides) == tuple(
            call.layer.pool_size
        ):
            convolution = _convolution_before(graph, call)
            if convolution is not None:
                found.append((convolution, call))
    return found


def last_convolution(graph: Graph) -> Call | None:
    """The convolution whose map the only Flatten of a graph takes, where it does not stride."""
    flat = [call for call in graph.calls if isinstance(call.layer, _LAYERS.Flatten)]
    found = _convolution_before(graph, flat[0]) if len(flat) == 1 else None
    if found is None or any((n or 0) < 4 for n in shapes_of(graph)[found.results[0]][1:-1]):
        return None
    return found


def with_smaller_maps(
    model: keras.Model, average: int = 1, *, strided: bool = False, shrunk: bool = False
) -> keras.Model:
    """Rebuild a model with smaller maps, with its weights.

    Where a Flatten gives fewer values, the kernel behind it is summed over the positions that one
    position now represents. Other weights of which the shape changes begin anew, with the same
    values each time.

    Args:
        model: a functional Keras 3 model.
        average: over how many values along each axis its input is averaged.
        strided: whether convolutions stride in place of the pooling layers behind them.
        shrunk: whether the convolution before the only Flatten strides by 2.

    Raises:
        ValueError: if there is no such layer.
    """
    graph = graphs.read(model)
    before = shapes_of(graph)
    strides: dict[int, tuple[int, ...]] = {}
    if strided:
        pairs = pooled_convolutions(graph)
        if not pairs:
            raise problem(
                f"strided=True for {model.name!r}, in which no convolution has a pooling behind it",
                "a convolution, its normalization and activation, and a pooling layer",
                "pass strided=False",
            )
        for convolution, pooling in pairs:
            strides[id(convolution.layer)] = tuple(pooling.layer.strides)
            block = Block(pooling.operands()[0], pooling.results[0], (pooling,))
            graph = without(graph, block)
    if shrunk:
        last = last_convolution(graph)
        if last is None or id(last.layer) in strides:
            raise problem(
                f"shrunk=True for {model.name!r}, whose last map is small already or not flattened",
                "a convolution that does not stride before the only Flatten",
                "pass shrunk=False",
            )
        strides[id(last.layer)] = (2,) * len(last.layer.strides)
    return _replayed(model.name, graph, before, strides, average)


def _convolution_before(graph: Graph, call: Call) -> Call | None:
    """The convolution without strides whose map a call takes, and nothing else does."""
    made = {slot: each for each in graph.calls for slot in each.results}
    calls = [id(each.layer) for each in graph.calls]
    ends = keras.tree.flatten(graph.outputs)
    while True:
        operands = call.operands()
        if len(operands) != 1 or operands[0] not in made or operands[0] in ends:
            return None
        readers = sum(operands[0] in each.operands() for each in graph.calls)
        call = made[operands[0]]
        if readers != 1 or calls.count(id(call.layer)) != 1:
            return None
        if isinstance(call.layer, _CONVOLUTIONS):
            is_plain = {*call.layer.strides, *call.layer.dilation_rate} == {1}
            is_last = call.layer.data_format == "channels_last"
            return call if is_plain and is_last else None
        if not isinstance(call.layer, _BETWEEN):
            return None


def _replayed(
    name: str,
    graph: Graph,
    before: Mapping[Slot, Sequence[int | None]],
    strides: dict[int, tuple[int, ...]],
    average: int,
) -> keras.Model:
    names = graph.names()
    records = {}
    for layer in graph.layers():
        record = record_of(layer)
        if id(layer) in strides:
            record = replace(record, config={**record.config, "strides": strides[id(layer)]})
        records[id(layer)] = replace(record, name=names[id(layer)])
    made = {key: [make_layer(record)] for key, record in records.items()}
    inputs: dict[Slot, Any] = {}
    tensors: dict[Slot, Any] = {}
    for spec in graph.input_specs:
        tensor = keras.Input(spec.shape[1:], spec.shape[0], dtype=spec.dtype, name=spec.name)
        inputs[spec.slot] = tensors[spec.slot] = tensor
        if average > 1:
            pooling = _IN_FRONT[len(spec.shape)](average, name="smaller_input")
            tensors[spec.slot] = pooling(tensor)
    for _ in graphs.steps(graph, made, tensors):
        pass
    model = keras.Model(
        keras.tree.map_structure(lambda slot: inputs[slot], graph.inputs),
        keras.tree.map_structure(
            lambda leaf: tensors[leaf] if isinstance(leaf, Slot) else leaf, graph.outputs
        ),
        name=name,
    )
    maps = list(_flattened(graph, before, tensors))
    for number, (key, record) in enumerate(records.items()):
        [layer] = made[key]
        for weight_name, weight in named_weights(layer).items():
            value = record.weights.get(weight_name)
            if value is not None and not _assign(weight, value, maps):
                _renew(layer, weight_name, weight, number)
    return model


def _flattened(
    graph: Graph, before: Mapping[Slot, Sequence[int | None]], tensors: dict[Slot, Any]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of the maps that are flattened, before and now."""
    for call in graph.calls:
        if isinstance(call.layer, _LAYERS.Flatten):
            [slot] = call.operands()
            old, new = before[slot][1:], tuple(tensors[slot].shape)[1:]
            if None not in (*old, *new):
                yield tuple(size or 0 for size in old), tuple(size or 0 for size in new)


def _assign(
    weight: Any,
    value: np.ndarray,
    maps: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
) -> bool:
    """Give a weight the value of the teacher's; False where it has another shape."""
    shape = tuple(weight.shape)
    if shape == value.shape:
        weight.assign(value)
        return True
    for old, new in maps:
        if (math.prod(old), math.prod(new)) == (value.shape[0], shape[0]):
            weight.assign(_summed(value, old, new))
            return True
    return False


def _renew(layer: Any, name: str, weight: Any, seed: int) -> None:
    """Draw a weight anew, the same in each process: a form is built more than once."""
    initializer: Any = getattr(layer, f"{name}_initializer", None)
    config = initializer.get_config() if hasattr(initializer, "get_config") else {}
    if "seed" in config:
        again = type(initializer).from_config({**config, "seed": seed})
        weight.assign(again(weight.shape, weight.dtype))


def _summed(kernel: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """A kernel on a flattened map, summed over the positions that become one.

    Args:
        kernel: shaped (positions x channels, units).
        old: the shape of the map: positions along each axis, and channels.
        new: the smaller one.
    """
    parts = kernel.reshape(*old, -1)
    for axis, (size, fewer) in enumerate(zip(old[:-1], new[:-1], strict=True)):
        first = [-(-place * size // fewer) for place in range(fewer)]
        parts = np.add.reduceat(parts, first, axis)
    return parts.reshape(math.prod(new), -1)
