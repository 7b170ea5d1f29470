"""Whether a model and its twin in the other Keras compute the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph

# Largest difference accepted between a model and its rebuilt twin, relative to outputs above 1.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
_UNKNOWN_SIZE = 32


class DifferenceError(ValueError):
    """Twins compute different outputs; `call` is the first that does, None if no single one."""

    def __init__(self, model: keras.Model, call: graphs.Call | None) -> None:
        first = f"first at layer {call.path!r} of class {type(call.layer).__name__}" if call else ""
        super().__init__(
            problem(
                f"model {model.name!r}, which gives other outputs when it is rebuilt in tf_keras"
                f" ({first or 'no single layer does'})",
                "the same outputs to 1e-5",
                "replace that layer by one that both Kerases compute alike",
            )
        )
        self.call = call


def verify(model: keras.Model, rebuilt: Any) -> None:
    """Compare the outputs of a model and its twin in tf_keras on random input.

    Neither is changed, even where calling a model changes its state.

    Raises:
        DifferenceError: if they differ; the message names the first layer that does.
    """
    graph = graphs.read(model)
    values = random_inputs(graph)
    structured = keras.tree.map_structure(lambda slot: values[slot], graph.inputs)
    with _unchanged(graph.layers()), _unchanged(rebuilt.layers):
        expected = keras.tree.flatten(model(structured, training=False))
        received = keras.tree.flatten(rebuilt(structured, training=False))
    differences = [_difference(*pair) for pair in zip(expected, received, strict=True)]
    if max(differences) > 1:
        with _unchanged(graph.layers()), _unchanged(rebuilt.layers):
            raise DifferenceError(model, _first_difference(model, rebuilt, values))


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
    """Give non-trainable variables and the states of recurrent layers their values back."""
    parts = [part for layer in layers for part in getattr(layer, "_flatten_layers", list)()]
    variables = {
        id(variable): variable
        for part in parts
        for variable in [
            *part.non_trainable_variables,
            *(keras.tree.flatten(part.states) if getattr(part, "stateful", False) else ()),
        ]
        if variable is not None
    }
    before = {key: np.asarray(variable).copy() for key, variable in variables.items()}
    try:
        yield
    finally:
        for key, value in before.items():
            variables[key].assign(value)


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


def _first_difference(
    model: keras.Model, rebuilt: Any, values: dict[graphs.Slot, Any]
) -> graphs.Call | None:
    """Which call is the first to compute something else, seen by running both one by one."""
    graph = graphs.read(model)
    names = graph.names()
    own = {id(layer): [layer] for layer in graph.layers()}
    twins = {id(layer): [rebuilt.get_layer(names[id(layer)])] for layer in graph.layers()}
    ours, theirs = dict(values), dict(values)
    for call, _ in zip(
        graphs.steps(graph, own, ours), graphs.steps(graph, twins, theirs), strict=True
    ):
        if any(_difference(ours[slot], theirs[slot]) > 1 for slot in call.results):
            return call
    return None
