"""Objects of Keras 3 as text, which tf_keras stores in its configs without looking into it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import keras
import numpy as np

from keras_kd._checks import one_line, problem

# What was made into text in this process may be made again without being registered with Keras,
# and may hold Python code: the user has just passed it.
_SEEN: dict[str, dict[str, Any]] = {}
# All of these, for layers within layers that are made again from their configs.
_CUSTOM_OBJECTS: dict[str, Any] = {}

_SERIALIZED = (
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
)
_VOCABULARIES = ("IntegerLookup", "StringLookup", "TextVectorization")


def to_text(item: keras.Operation) -> str:
    """A Keras 3 layer or operation, without its weights.

    Raises:
        ValueError: if it cannot be made again from its config.
    """
    custom = _custom_objects(item)
    try:
        with _lambdas_allowed():
            serialized = keras.saving.serialize_keras_object(item)
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
    return keras.saving.deserialize_keras_object(
        json.loads(text),
        custom_objects=_SEEN.get(text),
        safe_mode=safe_mode and text not in _SEEN,
    )


def from_config(layer_class: type, config: Mapping[str, Any]) -> Any:
    """A new Keras 3 layer from the config of a living one."""
    return keras.saving.deserialize_keras_object(
        {
            "module": layer_class.__module__,
            "class_name": layer_class.__name__,
            "registered_name": layer_class.__name__,
            "config": dict(config),
        },
        custom_objects={**_CUSTOM_OBJECTS, layer_class.__name__: layer_class},
        safe_mode=False,
    )


def config_of(layer: Any) -> dict[str, Any]:
    """`get_config()` of a layer of either Keras, with all that makes it compute the same.

    Raises:
        ValueError: if the layer has no config; names the layer.
    """
    if isinstance(layer, keras.layers.Layer):
        _CUSTOM_OBJECTS.update(_custom_objects(layer))
    try:
        with _lambdas_allowed():
            return {**layer.get_config(), **_own_functions(layer), **_vocabulary(layer)}
    except Exception as error:
        raise _not_copied(layer, error) from error


def arguments_to_text(arguments: Any, is_tensor: Callable[[Any], bool]) -> str:
    """The arguments of a call; a number in place of each tensor says which it is."""
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
        return {"value": keras.saving.serialize_keras_object(value)}

    return json.dumps(encoded(arguments))


def arguments_from_text(text: str, tensors: list[Any]) -> Any:
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


def _not_copied(item: Any, error: Exception) -> ValueError:
    reason = one_line(str(error).strip().partition("\n\n")[0]).rstrip(".")
    return ValueError(
        problem(
            f"{item.name!r} of class {type(item).__name__}, which cannot be made again from its"
            f" config: {reason}",
            "a layer or operation that Keras can save and load",
            f"give {type(item).__name__} the methods `get_config` and `from_config`",
        )
    )


@contextmanager
def _lambdas_allowed() -> Iterator[None]:
    """Keras' advice on lambdas is for those who load a file, not for who copies a model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*includes a `lambda`")
        yield


def _own_functions(layer: Any) -> dict[str, Any]:
    """Activations that are not Keras' own, as the functions that they are."""
    own = {
        option: getattr(layer, option, None)
        for option, value in layer.get_config().items()
        if option.endswith("activation") and isinstance(value, Mapping)
    }
    return {
        option: value
        for option, value in own.items()
        if value is not None and not isinstance(value, keras.layers.Layer)
    }


def _vocabulary(layer: Any) -> dict[str, Any]:
    """What a layer has learned by `adapt`, which Keras keeps in files but not in configs."""
    if type(layer).__name__ not in _VOCABULARIES:
        return {}
    return {"vocabulary": layer.get_vocabulary(include_special_tokens=False)}


def _custom_objects(item: Any) -> dict[str, Any]:
    """Classes and functions in a layer, by the names under which Keras would look for them."""
    layers = item._flatten_layers() if isinstance(item, keras.layers.Layer) else [item]
    found: dict[str, Any] = {}
    for layer in layers:
        values = vars(layer).values()
        functions = [value for value in values if isinstance(value, FunctionType)]
        classes = [type(value) for value in values if isinstance(value, _SERIALIZED)]
        for custom in (type(layer), *functions, *classes):
            if not custom.__module__.startswith("keras."):
                found[keras.saving.get_registered_name(custom)] = custom
    return found
