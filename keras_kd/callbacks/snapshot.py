"""All state that a training changes, to arrays and JSON and back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_kd import _keras
from keras_kd._checks import problem
from keras_kd._fitting import own

# How callbacks of Keras compare; they change other attributes when they choose one of these.
_FUNCTIONS = {
    "less": keras.ops.less,
    "greater": keras.ops.greater,
    "numpy.less": np.less,
    "numpy.greater": np.greater,
}
_TEXT = "state"
# What a callback has from the fit in which it is.
_OF_FIT = ("model", "_model", "params", "validation_data", "_callback")


class Unpackable(TypeError):
    """A value that is no number, text, array or structure of them."""


class Pack:
    """Plain values as JSON, with the arrays beside it.

    Attributes:
        arrays: by the names that represent them in the JSON.
    """

    def __init__(self, arrays: dict[str, np.ndarray] | None = None) -> None:
        self.arrays = {} if arrays is None else arrays

    def add(self, value: Any) -> Any:
        """The value as JSON types.

        Raises:
            Unpackable: if it is something else.
        """
        if value is None or isinstance(value, bool | str):
            return value
        # Subclasses such as enumerations would come back as plain numbers.
        if type(value) in (int, float):
            return value
        if isinstance(value, np.ndarray | np.generic):
            return {"array": self._add_array(np.asarray(value)), "zero": np.isscalar(value)}
        if type(value) in (list, tuple):
            return {type(value).__name__: [self.add(part) for part in value]}
        if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
            return {"dict": [[key, self.add(part)] for key, part in value.items()]}
        for name, function in _FUNCTIONS.items():
            if value is function:
                return {"function": name}
        raise Unpackable(type(value).__name__)

    def take(self, packed: Any) -> Any:
        """The value that `add` got."""
        if not isinstance(packed, dict):
            return packed
        if "array" in packed:
            array = self.arrays[packed["array"]]
            return array[()] if packed["zero"] else array
        if "function" in packed:
            return _FUNCTIONS[packed["function"]]
        if "dict" in packed:
            return {key: self.take(part) for key, part in packed["dict"]}
        ((kind, parts),) = packed.items()
        return {"list": list, "tuple": tuple}[kind](self.take(part) for part in parts)

    def _add_array(self, array: np.ndarray) -> str:
        if array.dtype == object:
            raise Unpackable("object")
        name = f"array_{len(self.arrays)}"
        self.arrays[name] = array
        return name


class Snapshot:
    """What a training of one model changes.

    Args:
        model: a compiled model of either Keras.
        callbacks: those of its `fit` whose state counts.
    """

    def __init__(self, model: Any, callbacks: Sequence[Any]) -> None:
        self._model = model
        self._callbacks = [own(callback) for callback in callbacks]
        self._before = [_plain(vars(callback)) for callback in self._callbacks]

    def take(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The state now, as JSON and arrays."""
        pack = Pack()
        groups = {
            name: [pack.add(_read(variable)) for variable in variables]
            for name, variables in self._variables().items()
        }
        callbacks = [
            {
                name: packed
                for name, packed in _packed(vars(callback), pack).items()
                if name not in before or not _same(before[name], vars(callback)[name])
            }
            for callback, before in zip(self._callbacks, self._before, strict=True)
        ]
        state = {
            "variables": groups,
            "callbacks": callbacks,
            "stopped": bool(self._model.stop_training),
            "random": pack.add(_random_state()),
        }
        return state, pack.arrays

    def restore(
        self, state: Mapping[str, Any], arrays: dict[str, np.ndarray], *, metrics: bool
    ) -> None:
        """Go back to a state.

        Args:
            state: the JSON that `take` gave.
            arrays: the arrays that it gave.
            metrics: whether to set the metrics, which an epoch begins anew.

        Raises:
            ValueError: if it is of another model.
        """
        pack = Pack(arrays)
        for name, variables in self._variables().items():
            if name == "metrics" and not metrics:
                continue
            kept = [pack.take(packed) for packed in state["variables"][name]]
            if len(kept) != len(variables):
                raise problem(
                    f"{len(variables)} variables of the {name} for a checkpoint that has "
                    f"{len(kept)}",
                    "the model with which the training was begun",
                    "pass another directory to begin anew",
                )
            for variable, value in zip(variables, kept, strict=True):
                _assign(variable, value)
        for callback, packed in zip(self._callbacks, state["callbacks"], strict=True):
            for name, value in packed.items():
                setattr(callback, name, pack.take(value))
        _set_random_state(pack.take(state["random"]))

    def _variables(self) -> dict[str, list[Any]]:
        """All variables of a training, each once, by what they belong to."""
        model, optimizer = self._model, self._model.optimizer
        is_keras = _keras.is_keras_model(model)
        metrics = [variable for metric in model.metrics for variable in metric.variables]
        for metric in model.metrics:
            # A metric of Keras 3 in the training of a tf_keras model.
            metrics += getattr(getattr(metric, "_metric", None), "value", metric).variables
        of_model = model.variables
        if not is_keras:
            of_model = [*of_model, *_hidden_variables(model)]
        kept: Any = optimizer.variables
        kept = kept() if callable(kept) else kept
        of_optimizer: list[Any] = [*kept]
        if not is_keras:
            of_optimizer += _learning_rate(optimizer)
        known = set(map(_key, metrics))
        return {
            "model": _once(item for item in of_model if _key(item) not in known),
            "optimizer": _once(of_optimizer),
            "metrics": _once(metrics),
        }


def _key(variable: Any) -> int:
    """What distinguishes a variable from others, also where Keras 3 holds one of TensorFlow."""
    return id(variable.value if isinstance(variable, keras.Variable) else variable)


def _once(variables: Iterable[Any]) -> list[Any]:
    return list({_key(variable): variable for variable in variables}.values())


def _hidden_variables(model: Any) -> list[Any]:
    """What tf_keras keeps outside a model's weights: counters, generators, layers of Keras 3."""
    counters = (getattr(model, f"_{name}_counter", None) for name in ("train", "test", "predict"))
    found = [counter for counter in counters if counter is not None]
    for layer in getattr(model, "student", model).submodules:
        generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
        found += [] if generator is None else [generator.state]
        found += getattr(getattr(layer, "keras_layer", None), "variables", [])
    teacher = getattr(model, "teacher", None)
    for learning in [] if teacher is None else teacher.learning_models:
        found += learning.variables
    return found


def _learning_rate(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = getattr(inner, "_learning_rate", None)
    return [rate] if hasattr(rate, "assign") else []


def _copies(variable: Any) -> Sequence[Any]:
    """The variables that the replicas of this process have of one; without a strategy itself.

    Those of metrics, of random generators and of statistics that are not synchronized differ.
    """
    import tensorflow as tf

    value = variable.value if isinstance(variable, keras.Variable) else variable
    return value.values if isinstance(value, tf.distribute.DistributedValues) else [variable]


def _read(variable: Any) -> Any:
    """The value of a variable; a list where the replicas have different ones."""
    arrays = [_as_bits(np.asarray(copy)) for copy in _copies(variable)]
    is_same = all(array.tobytes() == arrays[0].tobytes() for array in arrays[1:])
    return arrays[0] if is_same else arrays


def _as_bits(array: np.ndarray) -> np.ndarray:
    """Types that NumPy does not know, such as bfloat16, as integers of the same bits."""
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _assign(variable: Any, value: Any) -> None:
    """Give a variable what `_read` has read of it."""
    copies = _copies(variable)
    values = value if isinstance(value, list) else [value] * len(copies)
    for copy, array in zip(copies, values, strict=True):
        dtype = np.asarray(copy).dtype
        copy.assign(array.view(dtype) if dtype.kind == "V" else array)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of the attributes that can be kept."""
    pack = Pack()
    return {name: pack.take(packed) for name, packed in _packed(values, pack).items()}


def _packed(values: Mapping[str, Any], pack: Pack) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        if name not in _OF_FIT:
            try:
                found[name] = pack.add(value)
            except Unpackable:
                # Functions, models and files are not state.
                continue
    return found


def _same(before: Any, now: Any) -> bool:
    one, other = Pack(), Pack()
    if one.add(before) != other.add(now):
        return False
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(one.arrays.values(), other.arrays.values(), strict=True)
    )


def random_arrays(model: Any) -> dict[str, np.ndarray]:
    """The state of the generators that data and the layers of a Keras 3 model draw from."""
    pack = Pack()
    state = {"process": _random_state(), "layers": list(map(np.asarray, _seeds(model)))}
    text = json.dumps(pack.add(state))
    return {_TEXT: np.frombuffer(text.encode(), np.uint8), **pack.arrays}


def restore_random(model: Any, arrays: dict[str, np.ndarray]) -> None:
    """Give the generators the state that `random_arrays` returned.

    Raises:
        KeyError: if the arrays are others.
        ValueError: if the arrays are others, or of another model.
    """
    state = Pack(arrays).take(json.loads(arrays[_TEXT].tobytes()))
    for seed, value in zip(_seeds(model), state["layers"], strict=True):
        seed.assign(value)
    _set_random_state(state["process"])


def _seeds(model: Any) -> list[Any]:
    """Those of the layers, which a model's file does not hold."""
    weights = set(map(_key, model.weights))
    return [variable for variable in model.variables if _key(variable) not in weights]


def _random_state() -> dict[str, Any]:
    """By library."""
    # First, since Keras and TensorFlow draw a seed where they have none yet.
    of_keras = _read(_keras.global_seed_generator().state)
    generator = _tensorflow_generator()
    seeds = getattr(_keras.tf_keras_seeds(), "generator", None)
    return {
        "python": random.getstate(),
        "tf_keras": None if seeds is None else seeds.getstate(),
        "numpy": np.random.get_state(),
        "keras": of_keras,
        "tensorflow": None if generator is None else _read(generator.state),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    _assign(_keras.global_seed_generator().state, state["keras"])
    generator = _tensorflow_generator()
    if generator is not None and state["tensorflow"] is not None:
        _assign(generator.state, state["tensorflow"])
    if state["tf_keras"] is not None and (holder := _keras.tf_keras_seeds()) is not None:
        holder.generator = random.Random()
        holder.generator.setstate(state["tf_keras"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


def _tensorflow_generator() -> Any:
    """The global one; None where none was set and deterministic operations forbid a default."""
    import tensorflow as tf

    try:
        return tf.random.get_global_generator()
    except RuntimeError:
        return None
