"""From a Keras model to the bytes that run on a device."""

from __future__ import annotations

from typing import Any

from keras_kd._checks import check_choice, problem
from keras_kd._keras import check_model
from keras_kd._representative import representative_examples
from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.result import check_result
from keras_kd.tflite.conversion.signature import Signature
from keras_kd.tflite.conversion.students import check_unwrapped, in_float32, is_quantization_aware
from keras_kd.tflite.microcontroller import running
from keras_kd.tflite.microcontroller.agreement import check_agreement
from keras_kd.tflite.model import TFLiteModel

QUANTIZATIONS = ("float32", "float16", "dynamic_int8", "int8")
TARGETS = ("android", "microcontroller")
_MICROCONTROLLER_QUANTIZATIONS = ("float32", "int8")


def convert(
    student: Any,
    quantization: str = "float32",
    representative_data: Any = None,
    target: str = "android",
) -> TFLiteModel:
    """Convert a trained student to TFLite and check what came out.

    The file takes one example at a time and names its inputs and outputs as the student does. It
    needs nothing but the built-in operators of the runtimes. What is asked for is asserted on the
    result: the types of inputs, outputs and weights, no Flex and no variable operators.

    | quantization | weights | computes in | inputs and outputs |
    |---|---|---|---|
    | "float32" | float32 | float32 | float32 |
    | "float16" | float16 | float32 | float32 |
    | "dynamic_int8" | int8 in large kernels | int8 and float32 | float32 |
    | "int8", target "android" | int8 | int8 | float32, which MediaPipe accepts |
    | "int8", target "microcontroller" | int8 | int8 | int8 |

    Args:
        student: a trained Keras 3 or tf_keras model. Pruned ones are stripped first, with
            `keras_kd.compression.strip`; quantization-aware ones are passed as they are and
            convert to "int8" only. Models in mixed precision are converted in float32.
        quantization: how numbers are stored, see above.
        representative_data: examples like those that the student was trained on, scaled in the
            same way, from which the ranges of its activations are read. Needed for "int8" unless
            the student is quantization-aware in every layer (`quantization_summary` names those
            that compute in float). An array, a dict of arrays by input name, a
            `tf.data.Dataset` or a generator of batches; at most 500 examples are used. Other
            quantizations need none and do not look at it. Students that may loop over time are
            calibrated in a process of their own, because some loops end it.
        target: "android", or "microcontroller": TensorFlow Lite Micro (TFLM), which runs "float32"
            and "int8" only. Weights are aligned to 16 bytes for it, and if tflite-micro is
            installed, the file is run in it and its results compared with LiteRT's.

    Returns:
        The converted model.

    Raises:
        TypeError: if `representative_data` is of another type.
        ValueError: if the student, the data and the options do not fit together, or if the result
            is not what was asked for.

    Example:
        ```python
        model = keras_kd.tflite.convert(student, "int8", representative_data=x_train[:500])
        model.save("student.tflite")
        ```
    """
    check_model("student", student)
    check_choice("quantization", quantization, QUANTIZATIONS)
    check_choice("target", target, TARGETS)
    _check_target(quantization, target)
    _check_student(student, quantization, representative_data)
    signature = Signature(in_float32(student))
    examples = None
    if quantization == "int8" and representative_data is not None:
        examples = representative_examples(representative_data, signature.inputs)
    model = TFLiteModel(run_converter(signature, quantization, examples, target))
    check_result(model, signature.inputs, quantization, target)
    if target == "microcontroller":
        model = TFLiteModel(model.flatbuffer.aligned())
        if running.is_installed():
            check_agreement(model)
    return model


def _check_target(quantization: str, target: str) -> None:
    if target == "microcontroller" and quantization not in _MICROCONTROLLER_QUANTIZATIONS:
        raise ValueError(
            problem(
                f"quantization={quantization!r} for target='microcontroller'",
                f"one of {', '.join(map(repr, _MICROCONTROLLER_QUANTIZATIONS))}: TensorFlow Lite "
                "Micro refuses the others",
                "choose quantization='int8'",
            )
        )


def _check_student(student: Any, quantization: str, representative_data: Any) -> None:
    check_unwrapped(student)
    if is_quantization_aware(student):
        if quantization != "int8":
            raise ValueError(
                problem(
                    f"quantization={quantization!r} for a quantization-aware student",
                    "'int8', the form that it was trained for",
                    "choose quantization='int8', or pass keras_kd.compression.strip(student)",
                )
            )
    elif quantization == "int8" and representative_data is None:
        raise ValueError(
            problem(
                "quantization='int8' without representative_data",
                "examples from which the ranges of the activations are read",
                "pass representative_data=x_train[:500], or a quantization-aware student",
            )
        )
