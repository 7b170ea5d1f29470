"""From Keras 3 to tf_keras and back, with the same weights and the same outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import keras

from keras_kd._keras import check_model, is_tf_keras_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.comparison import Comparison, random_inputs
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.bridge.operations import Operation
from keras_kd.compression.bridge.translation import (
    LayerRecord,
    NoCounterpart,
    make_layer,
    record_of,
    set_weights,
    to_keras_record,
    to_opaque_record,
    to_tf_keras_record,
)

__all__ = ["Dismantle", "random_inputs", "rebuild", "to_keras", "to_tf_keras"]

Dismantle = Callable[[Any], Sequence[LayerRecord]]


def to_tf_keras(model: Any) -> Any:
    """Rebuild a Keras 3 model in tf_keras, with the same weights and the same outputs.

    A layer that both Kerases compute alike becomes tf_keras' own, so that TF-MOT can work on it.
    Any other layer (a custom one, one or an option that only Keras 3 has) and each operation
    between layers (`x + y`, `keras.ops.matmul(x, y)`) is kept as it is inside a tf_keras layer,
    where it trains and saves. The result is compared with the original on random input, and a
    layer that computes something else in tf_keras is kept as well.

    Layers keep their names. Models nested in the model are flattened; where that brings two layers
    of one name together, each gets its model's name in front (`backbone_conv`). Flattening can
    change the order of layers, and with it that of `get_weights()`, also after `strip`: pair
    weights by their layers' names. Weights, inputs and outputs (one, a list or a dict) and frozen
    layers are kept; initializers, the optimizer and what `compile` has set are not.

    Args:
        model: a Sequential or Functional `keras.Model`. A `tf_keras.Model` is copied.

    Returns:
        A functional `tf_keras.Model` that shares nothing with `model`.

    Raises:
        ValueError: if the model is subclassed or not built, if a layer cannot be made again from
            its config (the message names it), or if the outputs of the two differ.
    """
    check_model("model", model)
    graph = graphs.read(model)
    if is_tf_keras_model(model):
        return rebuild(graph, tf_keras(), lambda layer: [record_of(layer)])
    # First, since some layers build their weights when they are first called.
    comparison = Comparison(model)
    translation = _Translation(graph)
    while True:
        try:
            rebuilt = rebuild(graph, tf_keras(), translation.records)
            comparison.check(rebuilt)
        except graphs.LayerError as error:
            if error.layer is None or not translation.keep(error.layer):
                raise
        else:
            return rebuilt


class _Translation:
    """Which layers of a Keras 3 model tf_keras computes alike, as far as is known."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._kept: set[int] = set()

    def keep(self, layer: Any) -> bool:
        """Keep a layer as it is from now on; False if it is already."""
        known = id(layer) in self._kept
        self._kept.add(id(layer))
        return not known

    def records(self, layer: Any) -> list[LayerRecord]:
        """The tf_keras record of a Keras 3 layer."""
        if isinstance(layer, Operation) and layer.equivalent is None:
            self.keep(layer)
        if id(layer) not in self._kept:
            try:
                record = to_tf_keras_record(record_of(getattr(layer, "equivalent", layer)))
                self._check_calls(layer, record.layer_class)
                return [record]
            except NoCounterpart:
                self.keep(layer)
        return [to_opaque_record(layer)]

    def _check_calls(self, layer: Any, layer_class: type) -> None:
        accepted = {"initial_state", *inspect.signature(layer_class.call).parameters}
        for call in self._graph.calls:
            others = set(call.arguments[1]) - accepted
            if call.layer is layer and others:
                raise NoCounterpart(f"layer {layer.name!r} is called with {sorted(others)}")


def to_keras(model: Any, dismantle: Dismantle = lambda layer: [record_of(layer)]) -> keras.Model:
    """Rebuild a tf_keras model in Keras 3, with the same weights.

    Args:
        model: a Sequential or Functional `tf_keras.Model`.
        dismantle: returns the tf_keras records of the plain layers that replace a layer.

    Raises:
        ValueError: if Keras 3 has no layer for one of its layers; the message names it.
    """
    return rebuild(
        graphs.read(model),
        keras,
        lambda layer: [to_keras_record(record) for record in dismantle(layer)],
    )


def rebuild(
    graph: Graph, kit: ModuleType, dismantle: Dismantle, wrap: Callable[[Any], Any] = lambda x: x
) -> Any:
    """Build `graph` in `kit` (`keras` or `tf_keras`) from new layers with the old weights.

    `dismantle` returns the records of the layers of `kit` that replace a layer of the graph, and
    `wrap` what is put into the model in place of each new layer.
    """
    names = graph.names()
    made = {
        id(layer): [
            (make_layer(record), record)
            for record in (
                _renamed(record, layer.name, names[id(layer)]) for record in dismantle(layer)
            )
        ]
        for layer in graph.layers()
    }
    layers = {key: [wrap(layer) for layer, _ in parts] for key, parts in made.items()}
    model = graphs.build(graph, kit, layers)
    for layer in graph.layers():
        for new_layer, record in made[id(layer)]:
            _set_weights(new_layer, record, layer)
    return model


def _set_weights(new_layer: Any, record: LayerRecord, layer: Any) -> None:
    try:
        set_weights(new_layer, record)
    except ValueError as error:
        raise graphs.LayerError(str(error), layer) from error


def _renamed(record: LayerRecord, own: str, flat: str) -> LayerRecord:
    return replace(record, name=flat + record.name.removeprefix(own)) if own != flat else record
