"""The two Kerases, and what is private to them.

Users bring models of Keras 3 (`keras`), TensorFlow Model Optimization works on models of Keras 2
(`tf_keras`). Everything that depends on which one a model is, or on something that Keras does not
promise to keep, is here.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import keras

from keras_kd._checks import problem


def tf_keras() -> ModuleType:
    """Keras 2, imported when first asked for: it takes seconds."""
    import tf_keras

    return tf_keras


def is_keras_model(model: Any) -> bool:
    """Whether `model` is a Keras 3 model."""
    return isinstance(model, keras.Model)


def is_tf_keras_model(model: Any) -> bool:
    """Whether `model` is a Keras 2 model. Imports nothing: without tf_keras there is none."""
    module = sys.modules.get("tf_keras")
    return module is not None and isinstance(model, module.Model)


def check_model(name: str, model: Any) -> Any:
    """Return `model` if it is a model of either Keras.

    Raises:
        ValueError: if it is anything else.
    """
    if not (is_keras_model(model) or is_tf_keras_model(model)):
        raise ValueError(
            problem(
                f"{name}={model!r} of type {type(model).__module__}.{type(model).__qualname__}",
                "a keras.Model or a tf_keras.Model",
                f"load or build the model first and pass it as `{name}`",
            )
        )
    return model
