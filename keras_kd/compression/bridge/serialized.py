"""Keras 3 objects as text, stored in tf_keras configs without being interpreted."""

from __future__ import annotations

import functools
import json
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import keras
import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd.compression.layers import twin_of

# What was made into text in this process may be made again without being registered with Keras,
# and may hold Python code: the user has just passed it.
_SEEN: dict[str, dict[str, Any]] = {}
# All of these, for layers within layers that are made again from their configs.
_CUSTOM_OBJECTS: dict[str, Any] = {}

# Callables that are functions, or that layers call as functions of tensors.
_FUNCTIONS = (
    BuiltinFunctionType,
    FunctionType,
    MethodType,
    functools.partial,
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
)
# Callables with state of their own.
_STATEFUL = (
    type,
    keras.KerasTensor,
    keras.Operation,
    keras.Variable,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.optimizers.Optimizer,
    keras.random.SeedGenerator,
)
# What Keras puts on every layer in place of the class's own methods.
_METHODS = ("build", "call", "quantize")
# The functions of this process by the keys that represent them in texts, and the keys by `id`.
_FUNCTIONS_BY_KEY: dict[str, Any] = {}
_KEYS: dict[int, str] = {}
_VOCABULARIES = ("IntegerLookup", "StringLookup", "TextVectorization")


@keras.saving.register_keras_serializable("keras_kd")
class KeptFunction:
    """Stands for a user's function in a config.

    In the process in which it was serialized, the config gives the very same function: with the
    globals and closures of a lambda, and without being registered. Elsewhere it gives what Keras
    makes of such a function in a file.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What the layer's own `get_config` reads from the function."""
        if name == "_function":
            raise AttributeError(name)
        return getattr(self._function, name)

    def get_config(self) -> dict[str, Any]:
        """The key of the function, and its form in files of Keras; `None` if it has none."""
        key = _KEYS.setdefault(id(self._function), f"{self.__name__}-{uuid.uuid4().hex}")
        _FUNCTIONS_BY_KEY[key] = self._function
        return {"key": key, "name": self.__name__, "function": _in_files(self._function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The function itself.

        Raises:
            ValueError: if another process has kept it, and Keras has no form of it for files.
        """
        if config["key"] in _FUNCTIONS_BY_KEY:
            return _FUNCTIONS_BY_KEY[config["key"]]
        if config["function"] is None:
            raise ValueError(f"the function {config['name']!r} cannot be kept in a file")
        return keras.saving.deserialize_keras_object(config["function"])


def _in_files(function: Any) -> Any:
    try:
        if isinstance(function, FunctionType) and function.__name__ == "<lambda>":
            # Without its source, which Keras looks for only to quote it in a warning.
            code = keras.layers.Lambda(function).get_config()["function"]["config"]
            value = [code[part] for part in ("code", "defaults", "closure")]
            form = {"class_name": "__lambda__", "config": {"value": value}}
        elif isinstance(function, FunctionType) or hasattr(function, "get_config"):
            form = keras.saving.serialize_keras_object(function)
        else:
            return None
        return json.loads(json.dumps(form))
    except Exception:
        # Anything may be in a closure, and any Python in a user's get_config.
        return None


def function_to_text(function: Callable[..., Any]) -> str:
    """A user's own function; see `KeptFunction`."""
    return json.dumps(keras.saving.serialize_keras_object(KeptFunction(function)))


def function_from_text(text: str, *, safe_mode: bool = True) -> Any:
    """The function of a text; `safe_mode` refuses Python code that comes from a file."""
    return keras.saving.deserialize_keras_object(json.loads(text), safe_mode=safe_mode)


def to_text(item: keras.Operation) -> str:
    """A Keras 3 layer or operation, without its weights.

    Raises:
        ValueError: if it cannot be made again from its config.
    """
    custom = _custom_objects(item)
    try:
        with _functions_kept(item):
            serialized: Any = keras.saving.serialize_keras_object(item)
        serialized["config"] = {**serialized["config"], **_vocabulary(item)}
        for unneeded in ("build_config", "compile_config"):
            serialized.pop(unneeded, None)
        text = json.dumps(serialized, sort_keys=True)
        _SEEN[text] = custom
        _CUSTOM_OBJECTS.update(custom)
        from_text(text)
    except Exception as error:
        # A user's own get_config and from_config can raise anything.
        raise _not_copied(item, error) from error
    return text


def from_text(text: str, *, safe_mode: bool = True) -> Any:
    """A new layer or operation; `safe_mode` refuses Python code that comes from a file."""
    made = keras.saving.deserialize_keras_object(
        json.loads(text),
        custom_objects=_SEEN.get(text),
        safe_mode=safe_mode and text not in _SEEN,
    )
    return _with_masks(made)


def from_config(layer_class: type, config: Mapping[str, Any]) -> Any:
    """A new Keras 3 layer from the config of a living one."""
    made = keras.saving.deserialize_keras_object(
        {
            "module": layer_class.__module__,
            "class_name": layer_class.__name__,
            "registered_name": layer_class.__name__,
            "config": dict(config),
        },
        custom_objects={**_CUSTOM_OBJECTS, layer_class.__name__: layer_class},
        safe_mode=False,
    )
    return _with_masks(made)


def _with_masks(made: Any) -> Any:
    """The same layer; where a Lambda is in it, with its mask, which Keras leaves serialized."""
    for part in made._flatten_layers() if isinstance(made, keras.layers.Layer) else ():
        if isinstance(part, keras.layers.Lambda) and isinstance(part.mask, Mapping):
            part.mask = keras.saving.deserialize_keras_object(dict(part.mask))
    return made


def config_of(layer: Any) -> dict[str, Any]:
    """`get_config()` of a layer of either Keras, with all that makes it compute the same.

    Raises:
        ValueError: if the layer has no config; names the layer.
    """
    if isinstance(layer, keras.layers.Layer):
        _CUSTOM_OBJECTS.update(_custom_objects(layer))
    twin = twin_of(type(layer))
    if twin is not None and twin.by_arguments:
        return _config_of_lambda(layer)
    try:
        with _functions_kept(layer):
            config = layer.get_config()
        return {**config, **_own_functions(layer, config), **_vocabulary(layer)}
    except Exception as error:
        raise _not_copied(layer, error) from error


def arguments_to_text(arguments: Any, is_tensor: Callable[[Any], bool]) -> str:
    """The arguments of a call; a number in place of each tensor identifies it."""
    count = iter(range(len(keras.tree.flatten(arguments))))

    def encoded(value: Any) -> Any:
        if is_tensor(value):
            return {"tensor": next(count)}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [encoded(item) for item in value]}
        if isinstance(value, dict):
            return {"dict": {key: encoded(item) for key, item in value.items()}}
        if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
            value = np.asarray(value)
        if _is_function(value):
            value = KeptFunction(value)
        return {"value": keras.saving.serialize_keras_object(value)}

    return json.dumps(encoded(arguments))


def arguments_from_text(text: str, tensors: Sequence[Any] | Mapping[int, Any]) -> Any:
    """The arguments of a call with `tensors` in their places."""

    def decoded(value: dict[str, Any]) -> Any:
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind in ("list", "tuple"):
            items = [decoded(item) for item in content]
            return tuple(items) if kind == "tuple" else items
        if kind == "dict":
            return {key: decoded(item) for key, item in content.items()}
        return keras.saving.deserialize_keras_object(content)

    return decoded(json.loads(text))


def _not_copied(item: Any, error: Exception) -> Exception:
    reason = one_line(str(error).strip().partition("\n\n")[0]).rstrip(".")
    return problem(
        f"{item.name!r} of class {type(item).__name__}, which cannot be made again from its"
        f" config: {reason}",
        "a layer or operation that Keras can save and load",
        f"give {type(item).__name__} the methods `get_config` and `from_config`",
    )


@contextmanager
def _functions_kept(item: Any) -> Iterator[None]:
    """Let a layer or operation put `KeptFunction` into its config in place of each function."""
    parts = item._flatten_layers() if isinstance(item, keras.layers.Layer) else [item]
    before = []
    if isinstance(item, keras.Operation):
        for part in parts:
            for name, value in vars(part).items():
                kept = value if name in _METHODS else _kept(value)
                if kept is not value:
                    before.append((part, name, value, kept))
    try:
        for part, name, _, kept in before:
            # Past Keras, which tracks what is set on a layer.
            vars(part)[name] = kept
        with warnings.catch_warnings():
            # tf_keras' advice is about loading a file, not about copying a model.
            warnings.filterwarnings("ignore", message=".*includes a `lambda`")
            yield
    finally:
        for part, name, value, _ in before:
            vars(part)[name] = value


def _kept(value: Any) -> Any:
    """The same value, or another with functions replaced; also in lists and dicts."""
    if _is_function(value):
        return KeptFunction(value)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = [_kept(item) for item in value]
        changed = any(one is not other for one, other in zip(items, value, strict=True))
        return (tuple if isinstance(value, tuple) else list)(items) if changed else value
    if isinstance(value, dict):
        items = {key: _kept(item) for key, item in value.items()}
        return items if any(items[key] is not value[key] for key in value) else value
    return value


def _is_function(value: Any) -> bool:
    """Whether a value is a user's own function, which Keras might not find by its name."""
    if not callable(value) or isinstance(value, _STATEFUL):
        return False
    is_plain = isinstance(value, FunctionType | BuiltinFunctionType)
    module = (value if is_plain else type(value)).__module__ or ""
    if module.partition(".")[0] in ("keras", "tf_keras"):
        return False
    # Other objects may be anything: those that can be called with tensors have no other purpose.
    return isinstance(value, _FUNCTIONS) or not hasattr(value, "get_config")


def _config_of_lambda(layer: Any) -> dict[str, Any]:
    """The arguments of a Lambda of either Keras, functions as they are."""
    base = type(layer).__mro__[1].get_config(layer)
    return {
        **base,
        "function": layer.function,
        "output_shape": layer._output_shape,
        "mask": layer.mask,
        "arguments": dict(layer.arguments),
    }


def _own_functions(layer: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a layer of either Keras that hold a user's own functions, unchanged."""
    options = [option for option in config if option.endswith(_FUNCTION_OPTIONS)]
    values = {option: getattr(layer, option, None) for option in options}

    def is_own(option: str, value: Any) -> bool:
        # Functions of Keras that are no activations have no name in either Keras.
        is_unnamed = option.endswith("activation") and isinstance(config[option], Mapping)
        is_layer = isinstance(value, keras.layers.Layer)
        return _is_function(value) or (is_unnamed and callable(value) and not is_layer)

    return {option: value for option, value in values.items() if is_own(option, value)}


_FUNCTION_OPTIONS = ("activation", "_constraint", "_initializer", "_regularizer")


def _vocabulary(layer: Any) -> dict[str, Any]:
    """What a layer has learned by `adapt`, which Keras keeps in files but not in configs."""
    if type(layer).__name__ not in _VOCABULARIES:
        return {}
    return {"vocabulary": layer.get_vocabulary(include_special_tokens=False)}


def _custom_objects(item: Any) -> dict[str, type]:
    """Classes of layers in a layer, by the names under which Keras would look for them."""
    layers = item._flatten_layers() if isinstance(item, keras.layers.Layer) else [item]
    classes = {type(layer) for layer in layers}
    return {
        keras.saving.get_registered_name(custom): custom
        for custom in classes
        if not custom.__module__.startswith("keras.")
    }
