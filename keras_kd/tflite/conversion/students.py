"""What a student must be before it can be converted, and the form in which it is."""

from __future__ import annotations

from typing import Any

import keras

from keras_kd._checks import one_line, problem
from keras_kd._keras import is_keras_model, tf_keras

_REDUCED_PRECISION = ("float16", "bfloat16")


def is_quantization_aware(student: Any) -> bool:
    """Whether TF-MOT's quantization wrappers are in the student."""
    return any("quantization" in module for module in _tfmot_modules(student))


def check_unwrapped(student: Any) -> None:
    """Refuse students that still carry what TF-MOT needs for pruning or clustering.

    Raises:
        ValueError: if they do.
    """
    for module in _tfmot_modules(student):
        if "quantization" not in module:
            kind = "clustering" if "clustering" in module else "pruning"
            raise ValueError(
                problem(
                    f"the student {student.name!r} with {kind} wrappers around its layers",
                    "a student without them: in the file they would cost time and bytes",
                    "pass keras_kd.compression.strip(student)",
                )
            )


def in_float32(student: Any) -> Any:
    """The student itself, or a copy with the same weights if it computes in half precision.

    Raises:
        ValueError: if it must be copied and cannot be.
    """
    if not any(_computes_reduced(layer) for layer in [student, *layers_of(student)]):
        return student
    models = keras.models if is_keras_model(student) else tf_keras().models
    try:
        copy = models.clone_model(student, clone_function=_layer_in_float32)
        copy.set_weights(student.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            problem(
                f"the student {student.name!r} in mixed precision, which cannot be rebuilt "
                f"({one_line(error)})",
                "a student that computes in float32",
                "build it again under keras.config.set_dtype_policy('float32') and copy the "
                "weights: new.set_weights(old.get_weights())",
            )
        ) from error
    return copy


def layers_of(model: Any) -> list[Any]:
    """Every layer of the model, those in nested models and in wrappers included."""
    found = []
    for layer in getattr(model, "layers", []):
        found += [layer, *layers_of(layer)]
        wrapped = getattr(layer, "layer", None)
        if wrapped is not None:
            found += [wrapped, *layers_of(wrapped)]
    return found


def _tfmot_modules(student: Any) -> list[str]:
    """The modules of TF-MOT's classes among the layers, found without importing TF-MOT."""
    return [
        base.__module__
        for layer in layers_of(student)
        for base in type(layer).__mro__
        if base.__module__.startswith("tensorflow_model_optimization.")
    ]


def _computes_reduced(layer: Any) -> bool:
    return getattr(layer, "compute_dtype", None) in _REDUCED_PRECISION


def _layer_in_float32(layer: Any) -> Any:
    return type(layer).from_config(_config_in_float32(layer.get_config()))


def _config_in_float32(value: Any) -> Any:
    """A layer's config in which every dtype and policy of reduced precision is float32."""
    if isinstance(value, dict):
        return {key: _config_in_float32(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_config_in_float32(item) for item in value)
    if isinstance(value, str) and value.removeprefix("mixed_") in _REDUCED_PRECISION:
        return "float32"
    return value
