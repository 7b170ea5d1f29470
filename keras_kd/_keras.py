"""The two Kerases, and what is private to them.

Users bring models of Keras 3 (`keras`), TensorFlow Model Optimization works on models of Keras 2
(`tf_keras`). Everything that depends on which one a model is, or on something that Keras does not
promise to keep, is here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
from keras import ops

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


def check_backend() -> None:
    """Refuse to work on a backend that this package was not tested on.

    Raises:
        ValueError: if Keras runs on anything but TensorFlow.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            problem(
                f"the Keras backend {backend!r}",
                "the TensorFlow backend",
                "set the environment variable KERAS_BACKEND=tensorflow before importing keras",
            )
        )


def number_of_replicas() -> int:
    """How many replicas sum their gradients: 1 without `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


class Untracked:
    """Holds an object that Keras must not find when it looks through a model's attributes.

    Both Kerases make every model, list and dict that is set on a model a part of it: of its
    weights, its summary and its files.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class Logits:
    """An output's logits, and the activation that they went through where one is seen.

    Attributes:
        logits: tensor of the output's shape, at least float32.
        activation: `"softmax"`, `"sigmoid"` or `None`.
    """

    logits: Any
    activation: str | None


def recognise_logits(output: Any) -> Logits:
    """The logits behind a model's output tensor; the output itself where no activation is seen.

    The softmax and sigmoid of both Kerases leave their input on the tensor that they return,
    where their cross-entropies look for it, and in a traced graph the operation can be read. Going
    back to the logits is exact; the logarithm of a probability that has become 0 is not.
    """
    operation = _operation_type(output)
    logits = getattr(output, "_keras_logits", None)
    if logits is None and operation in ("Softmax", "Sigmoid"):
        logits = output.op.inputs[0]
    if logits is None:
        return Logits(_at_least_float32(output), None)
    if operation is None:
        activation = "softmax" if sums_to_one(output) else "sigmoid"
    else:
        activation = "sigmoid" if operation == "Sigmoid" else "softmax"
    return Logits(_at_least_float32(logits), activation)


def sums_to_one(output: Any) -> bool:
    """Whether every row of an eager tensor is a distribution over two or more classes."""
    if len(output.shape) == 0 or output.shape[-1] == 1:
        return False
    return bool(ops.all(distribution_like(output)))


def distribution_like(output: Any) -> Any:
    """A boolean per row of `output`, shape `(...)` of `(..., classes)`: could it be a softmax?"""
    output = _at_least_float32(output)
    total = ops.sum(output, axis=-1)
    # Half-precision probabilities of many classes are off by more than float32's epsilon.
    return ops.logical_and(ops.min(output, axis=-1) >= 0.0, ops.abs(total - 1.0) < 1e-2)


def _operation_type(tensor: Any) -> str | None:
    """The kind of TensorFlow operation a traced tensor comes from; `None` for other tensors."""
    try:
        return tensor.op.type
    except (AttributeError, RuntimeError):
        return None


def _at_least_float32(tensor: Any) -> Any:
    """Half precision cannot hold a softmax over many classes: compute in float32 or better."""
    tensor = ops.convert_to_tensor(tensor)
    wide = keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
    return tensor if wide else ops.cast(tensor, "float32")
