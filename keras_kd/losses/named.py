"""Distillation losses by name."""

from __future__ import annotations

import difflib
import inspect
import re
from typing import Any

import keras

from keras_kd._checks import problem
from keras_kd.losses import features, logits, relations


def name_of(loss: type) -> str:
    """The name of a loss's class in lower case with underscores: "soft_targets"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", loss.__name__).lower()


_CLASSES = [
    getattr(package, name) for package in (logits, features, relations) for name in package.__all__
]
_BY_NAME = {name_of(one): one for one in _CLASSES}


def get(loss: Any) -> keras.distillation.DistillationLoss:
    """A distillation loss by its name, with the default values of its arguments.

    Args:
        loss: the name of a class of `keras_kd.losses`, as it is written or in lower case with
            underscores ("SoftTargets", "soft_targets"); a loss, which is returned as it is; or the
            configuration that `keras.saving.serialize_keras_object` made of one. Losses on hidden
            features compare the models' outputs if made by name; build them with layer names
            instead.

    Returns:
        The loss.

    Raises:
        TypeError: if it is of another type.
        ValueError: if no loss has this name, or it has arguments without a default value.

    Example:
        ```python
        keras_kd.losses.get("soft_targets")  # SoftTargets(temperature=4.0)
        ```
    """
    if isinstance(loss, dict):
        loss = keras.saving.deserialize_keras_object(loss)
    if isinstance(loss, keras.distillation.DistillationLoss):
        return loss
    if not isinstance(loss, str):
        raise problem(
            f"distillation loss {loss!r} of type {type(loss).__name__}",
            "a distillation loss or its name",
            'pass for example "soft_targets" or keras_kd.losses.SoftTargets(temperature=4.0)',
            kind=TypeError,
        )
    known = {one.__name__: one for one in _CLASSES} | _BY_NAME
    if loss not in known:
        name = re.sub(r"[\W_]+", "_", loss).lower()
        close = difflib.get_close_matches(name, _BY_NAME, n=3) or ["soft_targets"]
        raise problem(
            f"distillation loss {loss!r}",
            f"one of {', '.join(map(repr, _BY_NAME))}",
            f"use {' or '.join(map(repr, close))}; docs/losses.md has an index of abbreviations",
        )
    kind = known[loss]
    needed = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty
    ]
    if needed:
        raise problem(
            f"distillation loss {loss!r} without {' and '.join(needed)}",
            "an object, since not all of its arguments have default values",
            f"pass keras_kd.losses.{kind.__name__}({', '.join(f'{one}=...' for one in needed)})",
        )
    return kind()
