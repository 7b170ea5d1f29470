"""What a student must be before it can be converted, and the form in which it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras

from keras_kd._checks import one_line, problem
from keras_kd._graphs import loops_over_time
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd.tflite.conversion.forms import Form

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
            raise problem(
                f"the student {student.name!r} with {kind} wrappers around its layers",
                "a student without them: in the file they would cost time and bytes",
                "pass keras_kd.compression.strip(student)",
            )


# Tables and hashes are no operators of TFLite.
_LOOKUPS = ("Hashing", "HashedCrossing", "IntegerLookup", "StringLookup", "TextVectorization")


def check_layers(
    student: Any,
    form: Form,
    missing: Collection[str] = (),
    fallback: str = "dynamic_int8",
) -> None:
    """Refuse layers that cannot be converted, before TensorFlow says so in its own words.

    Args:
        student: the student.
        form: what was asked for.
        missing: operators that the place where it will run lacks.
        fallback: a form for what integers cannot compute.

    Raises:
        ValueError: if there are some.
    """
    for layer in layers_of(student):
        kind = type(layer).__name__
        if kind in _LOOKUPS:
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r} ({kind})",
                "layers that compute with numbers: TFLite has no operator for lookups",
                "apply that layer to the data before the student, and build the student on "
                "its results: keras.Input(..., dtype='int32')",
            )
        if getattr(layer, "quantization_mode", None) is not None:
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r}, which Keras has "
                f"quantized to {layer.quantization_mode!r}",
                "weights as they were trained: TFLite has other integers",
                "convert the student as it was before student.quantize(...), with "
                "quantization='int8' if integers are wanted",
            )
        if kind == "CategoryEncoding" and layer.output_mode in ("multi_hot", "count"):
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r} (CategoryEncoding "
                f"with output_mode={layer.output_mode!r})",
                "layers that TFLite has operators for: it cannot count",
                "use output_mode='one_hot', or apply the layer to the data before the student",
            )
        if kind == "Embedding" and isinstance(layer, keras.Layer) and "SELECT" in missing:
            # That of Keras 3 also looks up negative numbers, from the end; that of tf_keras does
            # not, and needs no such operator.
            raise problem(
                f"the student {student.name!r} with the layer {layer.name!r} (an Embedding of "
                "Keras 3) for target='microcontroller'",
                "layers without the operator SELECT, which TensorFlow Lite Micro lacks",
                "pass keras_kd.compression.to_tf_keras(student), whose Embedding needs none",
            )
        if form.needs_data and _is_fused_in_both_directions(layer):
            raise problem(
                f"quantization={form.name!r} for the student {student.name!r} with the layer "
                f"{layer.name!r}, LSTMs in two directions",
                "a layer that the converter calibrates rightly: of these it computes something "
                "else",
                "build it with unroll=True and copy the weights, or choose "
                f"quantization={fallback!r}",
            )
        if form.needs_data and loops_over_time(layer):
            raise problem(
                f"quantization={form.name!r} for the student {student.name!r} with the layer "
                f"{layer.name!r} ({kind}), a loop over time",
                "recurrent layers that the converter can calibrate: this one ends its process",
                "build the student with unroll=True in this layer and copy the weights, "
                f"new.set_weights(old.get_weights()), or choose quantization={fallback!r}",
            )


def _is_fused_in_both_directions(layer: Any) -> bool:
    """Whether the converter makes two operators of it, one for each direction of time.

    Their int8 results are off by 6 to 57 % of the range; each direction alone is right.
    """
    inner = getattr(layer, "forward_layer", None)
    return (
        type(layer).__name__ == "Bidirectional"
        and not isinstance(layer, keras.Layer)
        and type(inner).__name__ == "LSTM"
        and not inner.unroll
        # With its states as inputs it is no such operator.
        and not inner.stateful
    )


def in_float32(student: Any) -> Any:
    """The student itself, or a copy with the same weights if it computes in half precision.

    Raises:
        ValueError: if it must be copied and cannot be.
    """
    if not any(_computes_reduced(layer) for layer in [student, *layers_of(student)]):
        return student
    return _rebuilt(
        student,
        _config_in_float32,
        f"the student {student.name!r} in mixed precision",
        "a student that computes in float32",
        "build it again under keras.config.set_dtype_policy('float32') and copy the weights: "
        "new.set_weights(old.get_weights())",
    )


def unrolled(student: Any) -> Any:
    """A copy of a student whose LSTMs, GRUs and other recurrent layers run without a loop.

    The converter cannot calibrate loops, which int8 and int16x8 need. Unrolled, a layer is as many
    operators as there are steps: the file grows with the length, by 2 to 5 KB for each step of an
    LSTM in int8, and on microcontrollers so does the arena.

    Args:
        student: a trained Keras 3 or tf_keras model, Sequential or Functional, also with recurrent
            layers in Bidirectional or in nested models. The length of its sequences is known.

    Returns:
        A model of the same Keras with the same weights and the same outputs.

    Raises:
        ValueError: if a length is not known, or if the model cannot be rebuilt.

    Example:
        ```python
        model = keras_kd.tflite.convert(keras_kd.tflite.unrolled(student), "int8", x_train)
        ```
    """
    check_model("student", student)
    received = f"the student {student.name!r} to be unrolled"
    expected = "a Sequential or Functional model with sequences of a known length"
    fix = (
        "build it with the length that the device will feed, for example keras.Input((100, 8)), "
        "and copy the weights: new.set_weights(old.get_weights())"
    )
    shapes = [tuple(tensor.shape) for tensor in getattr(student, "inputs", None) or []]
    if any(None in shape[1:] for shape in shapes):
        raise problem(f"{received}, with inputs of the shapes {shapes}", expected, fix)
    return _rebuilt(student, _config_unrolled, received, expected, fix)


def _rebuilt(
    student: Any, changed: Callable[[Any], Any], received: str, expected: str, fix: str
) -> Any:
    """A copy with the same weights, of layers with other configs."""
    models = keras.models if is_keras_model(student) else tf_keras().models
    try:
        copy = models.clone_model(
            student,
            clone_function=lambda layer: type(layer).from_config(changed(layer.get_config())),
        )
        copy.set_weights(student.get_weights())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise problem(
            f"{received}, which cannot be rebuilt ({one_line(error)})", expected, fix
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


def _config_in_float32(value: Any) -> Any:
    """A layer's config in which every dtype and policy of reduced precision is float32."""
    if isinstance(value, dict):
        return {key: _config_in_float32(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_config_in_float32(item) for item in value)
    if isinstance(value, str) and value.removeprefix("mixed_") in _REDUCED_PRECISION:
        return "float32"
    return value


def _config_unrolled(value: Any) -> Any:
    """A layer's config in which every recurrent layer is unrolled."""
    if isinstance(value, dict):
        return {key: key == "unroll" or _config_unrolled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_config_unrolled(item) for item in value)
    return value
