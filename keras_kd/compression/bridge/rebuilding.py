"""From Keras 3 to tf_keras and back, with the same weights and the same outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_tf_keras_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.bridge.translation import (
    LayerRecord,
    make_layer,
    record_of,
    set_weights,
    to_keras_record,
    to_tf_keras_record,
)

# Largest difference accepted between a model and its rebuilt twin, relative to outputs above 1.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
_UNKNOWN_SIZE = 32

Dismantle = Callable[[Any], Sequence[LayerRecord]]


def to_tf_keras(model: Any) -> Any:
    """Rebuild a Keras 3 model in tf_keras, with the same weights and the same outputs.

    Layers keep their names. Models nested in the model are flattened; where that brings two layers
    of one name together, each gets its model's name in front (`backbone_conv`). Weights, inputs
    and outputs (one, a list or a dict) and frozen layers are kept; initializers, the optimizer and
    what `compile` has set are not. The result is compared with the original on random input.

    Args:
        model: a Sequential or Functional `keras.Model`. A `tf_keras.Model` is copied.

    Returns:
        A functional `tf_keras.Model` that shares nothing with `model`.

    Raises:
        ValueError: if the model is subclassed or not built, if tf_keras has no layer for one of its
            layers (the message names it), or if the outputs of the two differ.
    """
    check_model("model", model)
    graph = graphs.read(model)
    if is_tf_keras_model(model):
        return rebuild(graph, tf_keras(), lambda layer: [record_of(layer)])
    rebuilt = rebuild(graph, tf_keras(), lambda layer: [to_tf_keras_record(record_of(layer))])
    verify(model, rebuilt)
    return rebuilt


def to_keras(model: Any, dismantle: Dismantle = lambda layer: [record_of(layer)]) -> keras.Model:
    """Rebuild a tf_keras model in Keras 3, with the same weights.

    Args:
        model: a Sequential or Functional `tf_keras.Model`.
        dismantle: gives the tf_keras records of the plain layers that stand for a layer.

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

    `dismantle` gives the records of the layers of `kit` that stand for a layer of the graph, and
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
    for layer, record in (part for parts in made.values() for part in parts):
        set_weights(layer, record)
    return model


def _renamed(record: LayerRecord, own: str, flat: str) -> LayerRecord:
    return replace(record, name=flat + record.name.removeprefix(own)) if own != flat else record


def verify(model: keras.Model, rebuilt: Any) -> None:
    """Compare the outputs of a model and its twin in tf_keras on random input.

    Raises:
        ValueError: if they differ; the message names the first layer that does.
    """
    graph = graphs.read(model)
    values = random_inputs(graph)
    structured = keras.tree.map_structure(lambda slot: values[slot], graph.inputs)
    expected = keras.tree.flatten(model(structured, training=False))
    received = keras.tree.flatten(rebuilt(structured, training=False))
    differences = [_difference(*pair) for pair in zip(expected, received, strict=True)]
    if max(differences) > 1:
        raise ValueError(
            problem(
                f"model {model.name!r}, which gives other outputs when it is rebuilt in tf_keras"
                f" ({_first_difference(model, rebuilt, values)})",
                "the same outputs to 1e-5",
                "replace that layer by one that both Kerases compute alike",
            )
        )


def random_inputs(graph: Graph, examples: int = 2) -> dict[graphs.Slot, np.ndarray]:
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
        if spec.slot in limits or not np.issubdtype(np.dtype(spec.dtype), np.floating):
            value = generator.integers(0, limits.get(spec.slot, 2), shape)
        else:
            value = generator.uniform(-1, 1, shape)
        values[spec.slot] = value.astype(spec.dtype)
    return values


def _difference(expected: Any, received: Any) -> float:
    """The largest difference as a multiple of what is tolerated."""
    tolerance = _TOLERANCE.get(keras.backend.standardize_dtype(expected.dtype), 0.0)
    expected, received = (np.asarray(keras.ops.cast(x, "float32")) for x in (expected, received))
    if expected.shape != received.shape or not np.array_equal(
        np.isnan(expected), np.isnan(received)
    ):
        return float("inf")
    scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0.0)))
    largest = float(np.nanmax(np.abs(expected - received), initial=0.0))
    return largest / (scale * tolerance) if tolerance else largest * float("inf")


def _first_difference(model: keras.Model, rebuilt: Any, values: dict[graphs.Slot, Any]) -> str:
    """Which layer is the first to compute something else, seen by running both one by one."""
    graph = graphs.read(model)
    names = graph.names()
    own = {id(layer): [layer] for layer in graph.layers()}
    twins = {id(layer): [rebuilt.get_layer(names[id(layer)])] for layer in graph.layers()}
    ours, theirs = (
        {slot: keras.ops.convert_to_tensor(value) for slot, value in values.items()}
        for _ in range(2)
    )
    for call, _ in zip(
        graphs.steps(graph, own, ours), graphs.steps(graph, twins, theirs), strict=True
    ):
        if any(_difference(ours[slot], theirs[slot]) > 1 for slot in call.results):
            return f"first at layer {call.path!r} of class {type(call.layer).__name__}"
    return "no single layer does"
