"""Callbacks that change the arguments of `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


class TakesFit(keras.callbacks.Callback):
    """A callback that changes the arguments of the `fit` in which it is."""

    def take_fit(self, model: Any, fit: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Call `fit` with other arguments, and return what it returns.

        Args:
            model: that is trained.
            fit: trains it, with the arguments of `keras.Model.fit` by name.
            arguments: those that the user gave; `callbacks` are of the model's Keras.
        """
        raise NotImplementedError


class FitTaken:
    """A model whose `fit` is a `call_fit`."""


def call_fit(model: Any, fit: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call `fit`, or let the callback among the arguments call it that takes it."""
    found = [item for item in listed(arguments.get("callbacks")) if is_fit_taken_by(item)]
    return own(found[0]).take_fit(model, fit, arguments) if found else fit(**arguments)


def listed(callbacks: Any) -> list[Any]:
    """The callbacks of `fit`, in any form that Keras takes."""
    inner = getattr(callbacks, "callbacks", callbacks)
    return [item for item in keras.tree.flatten(inner) if item is not None]


def own(callback: Any) -> Any:
    """The user's callback, also where it is wrapped for a model of tf_keras."""
    return getattr(callback, "_callback", callback)


def is_fit_taken_by(callback: Any) -> bool:
    """Whether a callback is one that changes `fit`."""
    return isinstance(own(callback), TakesFit)
