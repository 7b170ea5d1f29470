"""Outputs of models on the same examples, by the names of the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import problem
from keras_kd._examples import check_finite, check_numbers, identifier, number_of_examples
from keras_kd._graphs import input_names
from keras_kd._keras import is_keras_model, is_tf_keras_model
from keras_kd._limits import is_watched, watched_batch
from keras_kd.tflite import TFLiteModel
from keras_kd.tflite.streams import has_states
from keras_kd.tflite.student import Signature

_BATCH_SIZE = 256


Outputs = dict[str, np.ndarray]


class Examples(NamedTuple):
    """Examples by input name; for models with one input the name may be any."""

    arrays: dict[str, np.ndarray]
    count: int

    @classmethod
    def of(cls, x: Any, models: Any) -> Examples:
        """Take examples as users give them.

        Raises:
            ValueError: if there are none, or if their lengths or names do not fit.
        """
        if isinstance(x, Mapping):
            arrays = {str(name): np.asarray(values) for name, values in x.items()}
        elif isinstance(x, list | tuple) and any(len(_inputs(model)) > 1 for model in models):
            names = next(
                (_inputs(m) for m in models if not isinstance(m, TFLiteModel) and _inputs(m)), []
            )
            if len(names) != len(x):
                raise problem(
                    f"x as a list of {len(x)} arrays",
                    f"as many as a Keras model among the models has inputs ({len(names)})",
                    "pass a dict by input name",
                )
            arrays = dict(zip(names, map(np.asarray, x), strict=True))
        else:
            arrays = {"": np.asarray(x)}
        if not arrays or any(array.ndim == 0 or not len(array) for array in arrays.values()):
            raise problem("x without test examples", "at least one", "pass x_test")
        return cls(arrays, number_of_examples(arrays))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of one example."""
        return [array.shape[1:] for array in self.arrays.values()]

    def first(self) -> Examples:
        """The first example alone."""
        return Examples({name: array[:1] for name, array in self.arrays.items()}, 1)

    def for_model(self, name: str, model: Any) -> Any:
        """The arrays in the structure that a model takes.

        Raises:
            ValueError: if its inputs have other names.
        """
        inputs = _inputs(model)
        if len(self.arrays) == 1 and len(inputs) <= 1:
            return next(iter(self.arrays.values()))
        arrays = renamed(self.arrays, inputs)
        if inputs and set(inputs) != set(arrays):
            given = list(self.arrays) if "" not in self.arrays else "an array"
            raise problem(
                f"x with {given} for {name!r} with the inputs {inputs}",
                "an array for each input, by its name",
                "use the names of the inputs as keys",
            )
        structure = None if isinstance(model, TFLiteModel) else input_names(model)
        if isinstance(structure, list):
            return [arrays[each] for each in structure]
        return arrays


def _inputs(model: Any) -> list[str]:
    """The names of a model's inputs, without states; none where it does not have any."""
    if isinstance(model, TFLiteModel):
        return [tensor.name for tensor in model.inputs if tensor.name not in model.state_outputs]
    if not (is_keras_model(model) or is_tf_keras_model(model)):
        return []
    names = input_names(model)
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def renamed(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values under those of the names that differ only in what is no letter or digit.

    A file has the input "acc_x" where the Keras model has "acc-x".
    """
    plain = {identifier(name): name for name in names}
    return {plain.get(identifier(name), name): value for name, value in values.items()}


def check_model(name: str, model: Any) -> None:
    """Check that a model can be run.

    Raises:
        TypeError: if it is neither a Keras model nor a `TFLiteModel`.
    """
    if not (isinstance(model, TFLiteModel) or is_keras_model(model) or is_tf_keras_model(model)):
        raise problem(
            f"{name!r} of type {type(model).__name__}",
            "a Keras model or a keras_kd.tflite.TFLiteModel",
            "load the model first",
            kind=TypeError,
        )


def outputs_of(name: str, model: Any, examples: Examples) -> Outputs:
    """What a model gives, by output name; the name of a single output is ""."""
    check_model(name, model)
    x = examples.for_model(name, model)
    if isinstance(model, TFLiteModel):
        found = model.predict_stream(x) if model.state_outputs else model.predict_by_name(x)
    elif has_states(model):
        found = _streamed(name, model, x, examples.count)
    else:
        found = _predicted(name, model, x, examples.count)
        if isinstance(found, list | tuple):
            names = getattr(model, "output_names", None) or [f"output_{i}" for i in range(99)]
            found = dict(zip(names, found, strict=False))
    if not isinstance(found, Mapping):
        found = {"": found}
    arrays = {key: np.asarray(values) for key, values in found.items()}
    for key, values in arrays.items():
        output = f"an output {key!r} of {name!r}"
        fix = "compare models that compute numbers from one batch of examples"
        check_numbers(values, examples.count, output, fix)
        check_finite(values, output, "check that the examples and the weights are finite")
    return arrays if len(arrays) > 1 else {"": next(iter(arrays.values()))}


def _predicted(name: str, model: Any, x: Any, count: int) -> Any:
    """What the model predicts; a process that another one watches is watched batch by batch."""
    if not is_watched():
        return model.predict(x, batch_size=_BATCH_SIZE, verbose=0)
    parts = []
    for start in range(0, count, _BATCH_SIZE):
        with watched_batch(name, min(_BATCH_SIZE, count - start)):
            batch = _map(itemgetter(slice(start, start + _BATCH_SIZE)), x)
            parts.append(model.predict(batch, batch_size=_BATCH_SIZE, verbose=0))
    return _joined(parts)


def _streamed(name: str, model: Any, x: Any, count: int) -> Outputs:
    """What a model with `stateful=True` gives for each step of a stream, from zeros on."""
    signature = Signature(model)
    steps = signature.examples(x)
    parts = []
    for start in range(0, count, _BATCH_SIZE):
        with watched_batch(name, min(_BATCH_SIZE, count - start)):
            outputs = signature(_map(itemgetter(slice(start, start + _BATCH_SIZE)), steps))
        parts.append({key: np.asarray(value) for key, value in signature.own(outputs).items()})
    return _joined(parts)


def _map(function: Callable[[np.ndarray], Any], structure: Any) -> Any:
    if isinstance(structure, Mapping):
        return {key: _map(function, value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [_map(function, value) for value in structure]
    return function(structure)


def _joined(parts: list[Any]) -> Any:
    """Batches of the same structure, one after the other."""
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    if isinstance(parts[0], list | tuple):
        return [_joined(list(each)) for each in zip(*parts, strict=True)]
    return np.concatenate(parts)


def check_same_outputs(outputs: Mapping[str, Outputs]) -> None:
    """Check that all models have the same outputs.

    Raises:
        ValueError: if names or shapes differ.
    """
    (first, wanted), *others = (
        (name, {key: values.shape for key, values in found.items()})
        for name, found in outputs.items()
    )
    for name, shapes in others:
        if shapes != wanted:
            received, expected = (
                each[""] if list(each) == [""] else each for each in (shapes, wanted)
            )
            raise problem(
                f"outputs {received} of {name!r}",
                f"{expected}, as {first!r} gives",
                "compare models with the same outputs",
            )
