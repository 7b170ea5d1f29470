"""Activation functions, in each Keras under a name with which it can save and load them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import keras

from keras_kd._keras import tf_keras

# The same function under its name in tf_keras and in TF-MOT's list of activations.
_NAMES = {"silu": "swish"}
# tf_keras has a hard_sigmoid of another slope.
_OTHERS = frozenset({"hard_sigmoid"})
# Functions that tf_keras lacks are registered with it under this name.
PACKAGE = "keras_kd"


def in_other_keras(value: Any, target: ModuleType) -> Callable[..., Any] | None:
    """What computes the same in `target`; None where nothing is known to.

    Args:
        value: the value in a config: a name, the function itself, or its serialized form.
        target: the module `keras` or `tf_keras`.
    """
    if isinstance(value, Mapping):
        value = value.get("config")
    if callable(value):
        return _keras_function(value) if target is keras else _registered(value)
    if not isinstance(value, str):
        return None
    if target is keras:
        return _from_tf_keras(value)
    if value not in _OTHERS:
        known = getattr(target.activations, _NAMES.get(value, value), None)
        if known is not None:
            return known
    function = getattr(keras.activations, value, None)
    return _registered(function) if function is not None else None


def register_all() -> None:
    """Register all of Keras 3's functions with tf_keras, for files written by another process."""
    for name in vars(keras.activations):
        if not name.startswith("_") and name not in ("deserialize", "get", "serialize"):
            in_other_keras(name, tf_keras())


def _from_tf_keras(name: str) -> Callable[..., Any] | None:
    registered = tf_keras().saving.get_registered_object(name)
    if registered is not None:
        return _keras_function(registered)
    name = name.removeprefix(PACKAGE + ">")
    name = {old: new for new, old in _NAMES.items()}.get(name, name)
    return getattr(keras.activations, name, None)


def _keras_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's own function behind the one that was registered with tf_keras."""
    return getattr(function, "keras_function", function)


def _registered(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """`function`, under a name with which tf_keras can save it, and load it in this process."""
    if isinstance(function, keras.layers.Layer):
        # It would have to be built, and its weights to be trained.
        return None
    saving = tf_keras().saving
    base = re.sub(r"\W", "", getattr(function, "__name__", type(function).__name__))
    for number in range(1000):
        name = f"{base}_{number}" if number else base
        registered = saving.get_registered_object(f"{PACKAGE}>{name}")
        if registered is None:
            break
        if registered.keras_function is function:
            return registered

    def activation(x: Any) -> Any:
        return function(x)

    activation.__name__ = name
    activation.keras_function = function
    return saving.register_keras_serializable(PACKAGE, name)(activation)
