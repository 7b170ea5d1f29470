"""From Keras 3 to tf_keras and back, with the same weights and the same outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_kd._backends import mask_of
from keras_kd._checks import three_parts
from keras_kd._keras import check_model, is_tf_keras_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
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

    A layer that both versions of Keras compute alike becomes tf_keras' own, so that TF-MOT can work
    on it. Any other layer (a custom one, one or an option that only Keras 3 has) and each operation
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


# Largest difference accepted between a model and its rebuilt twin, relative to outputs above 1.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
_UNKNOWN_SIZE = 32


class Comparison:
    """What a model computes of random inputs, to compare its twins in tf_keras with.

    The model is called, but its state stays as it is.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._graph = graphs.read(model)
        self._values = random_inputs(self._graph)
        self._tolerance = _tolerance(self._graph)
        with _unchanged(self._graph.layers()):
            self._expected = keras.tree.flatten(model(self._structured(), training=False))

    def check(self, rebuilt: Any) -> None:
        """Compare with a twin.

        Raises:
            LayerError: if it computes something else; the message names the first layer that does.
        """
        with _unchanged(rebuilt.layers):
            received = keras.tree.flatten(rebuilt(self._structured(), training=False))
        pairs = zip(self._expected, received, strict=True)
        if all(_are_close(one, other, self._tolerance) for one, other in pairs):
            return
        call = self._first_difference(rebuilt)
        first = f"first at layer {call.path!r} of class {type(call.layer).__name__}" if call else ""
        raise graphs.LayerError(
            three_parts(
                f"model {self._model.name!r}, which gives other outputs when it is rebuilt in"
                f" tf_keras ({first or 'no single layer does'})",
                f"the same outputs to {self._tolerance:g}",
                "replace that layer by one that both versions of Keras compute alike",
            ),
            call.layer if call else None,
        )

    def _structured(self) -> Any:
        return keras.tree.map_structure(self._values.get, self._graph.inputs)

    def _first_difference(self, rebuilt: Any) -> graphs.Call | None:
        """The first call whose results differ, found by running both models call by call."""
        names = self._graph.names()
        layers = self._graph.layers()
        own = {id(layer): [layer] for layer in layers}
        twins = {id(layer): [rebuilt.get_layer(names[id(layer)])] for layer in layers}
        ours, theirs = dict(self._values), dict(self._values)
        with _unchanged(layers), _unchanged(rebuilt.layers):
            for call, _ in zip(
                graphs.steps(self._graph, own, ours),
                graphs.steps(self._graph, twins, theirs),
                strict=True,
            ):
                pairs = [(ours[slot], theirs[slot]) for slot in call.results]
                if not all(_are_close(*pair, self._tolerance) for pair in pairs):
                    return call
                if any(mask_of(one) is not None and mask_of(other) is None for one, other in pairs):
                    return call
        return None


def random_inputs(graph: Graph, examples: int = 2) -> dict[graphs.Slot, Any]:
    """Random values for the inputs of a graph; indices where an Embedding takes them."""
    generator = np.random.default_rng(0)
    limits = {
        slot: call.layer.input_dim
        for call in graph.calls
        if type(call.layer).__name__ == "Embedding"
        for slot in call.operands()
    }
    values = {}
    for spec in graph.input_specs:
        sizes = [_UNKNOWN_SIZE if size is None else size for size in spec.shape[1:]]
        shape = (spec.shape[0] or examples, *sizes)
        if spec.dtype == "string":
            words = generator.choice(["a", "b", "a b"], shape)
            values[spec.slot] = keras.ops.convert_to_tensor(words, dtype="string")
        elif spec.slot in limits or "float" not in spec.dtype:
            value = generator.integers(0, limits.get(spec.slot, 2), shape)
            values[spec.slot] = keras.ops.convert_to_tensor(value, dtype=spec.dtype)
        else:
            value = generator.uniform(-1, 1, shape)
            values[spec.slot] = keras.ops.convert_to_tensor(value, dtype=spec.dtype)
    return values


@contextmanager
def _unchanged(layers: Iterable[Any]) -> Iterator[None]:
    """Begin with recurrent states of zero; in the end all state has the values it had before."""
    parts = [part for layer in layers for part in getattr(layer, "_flatten_layers", list)()]
    states = [
        state
        for part in parts
        if getattr(part, "stateful", False)
        for state in keras.tree.flatten(part.states)
        if state is not None
    ]
    others = [variable for part in parts for variable in part.non_trainable_variables]
    before = [(variable, variable.numpy().copy()) for variable in [*states, *others]]
    for state in states:
        state.assign(np.zeros(state.shape))
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _tolerance(graph: Graph) -> float:
    """What the least precise of the layers allows."""
    dtypes = {getattr(layer, "compute_dtype", "float32") for layer in graph.layers()}
    return max(_TOLERANCE.get(dtype, 0.0) for dtype in {"float32", *dtypes})


def _are_close(expected: Any, received: Any, tolerance: float) -> bool:
    """Whether two tensors are equal up to a multiple of the largest value, if that is above 1."""
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(expected.dtype)):
        return bool(np.array_equal(expected, received))
    expected, received = (np.asarray(keras.ops.cast(x, "float64")) for x in (expected, received))
    if expected.shape != received.shape:
        return False
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(np.max(finite, initial=0.0)))
    return np.allclose(expected, received, rtol=0.0, atol=scale * tolerance, equal_nan=True)
