"""Whether a model and its twin in the other Keras compute the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_kd._backends import mask_of
from keras_kd._checks import three_parts
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph

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
                "replace that layer by one that both Kerases compute alike",
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
