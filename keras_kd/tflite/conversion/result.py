"""What a converted file is checked for: the converter can silently return something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

_VARIABLE_OPERATORS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")
_WEIGHTS = {"float16": "FLOAT16", "dynamic_int8": "INT8"}


def check_result(
    model: TFLiteModel, inputs: Sequence[TensorInfo], quantization: str, target: str
) -> None:
    """Refuse a file that is not what was asked for.

    Args:
        model: what the converter made.
        inputs: what the student takes.
        quantization: what was asked for.
        target: where it will run.

    Raises:
        ValueError: if it needs more than built-in operators without variables, or if its inputs,
            its outputs, its weights or its operators do not have the types asked for.
    """
    _check_operators(model)
    _check_weights(model, quantization)
    if quantization == "int8":
        _check_integer_only(model)
    integers = quantization == "int8" and target == "microcontroller"
    _check_inputs(model, inputs, integers)
    _check_outputs(model, integers)


def _check_operators(model: TFLiteModel) -> None:
    # Flex operators are not looked for: LiteRT has not loaded the file if there were any.
    refused = [name for name in model.operators if name in _VARIABLE_OPERATORS]
    if refused:
        raise ValueError(
            problem(
                f"a student that converts to the operators {', '.join(refused)}",
                "built-in operators without variables: nothing else runs on a device",
                "replace the layers that compute them",
            )
        )


def _check_weights(model: TFLiteModel, quantization: str) -> None:
    wanted = _WEIGHTS.get(quantization)
    if wanted is not None and wanted not in model.flatbuffer.weight_types():
        raise ValueError(
            problem(
                f"a file without any {wanted.lower()} weights from the converter",
                f"{quantization} weights; kernels of fewer than 1024 values stay float32 in "
                "dynamic_int8",
                "choose quantization='int8' or 'float32' for so small a student",
            )
        )


def _check_integer_only(model: TFLiteModel) -> None:
    operators = model.flatbuffer.float_operators()
    if operators:
        raise ValueError(
            problem(
                f"a file in which {', '.join(operators)} compute in floating point",
                "integers only, as quantization='int8' says",
                "pass representative_data: a quantization-aware student needs it where TF-MOT "
                "leaves layers in float",
            )
        )


def _check_inputs(model: TFLiteModel, inputs: Sequence[TensorInfo], integers: bool) -> None:
    wanted = {tensor.name: tensor for tensor in inputs}
    for tensor in model.inputs:
        student = wanted.get(tensor.name)
        if student is None or tensor.shape != student.shape:
            raise ValueError(
                problem(
                    f"a file with the input {tensor}",
                    f"the inputs of the student, {', '.join(map(str, inputs))}",
                    "report this student: the converter changed its inputs",
                )
            )
        _check_type(tensor, student.dtype, integers)


def _check_outputs(model: TFLiteModel, integers: bool) -> None:
    for tensor in model.outputs:
        real = tensor.is_quantized or np.issubdtype(tensor.dtype, np.floating)
        _check_type(tensor, np.dtype("float32") if real else tensor.dtype, integers)


def _check_type(tensor: TensorInfo, dtype: np.dtype, integers: bool) -> None:
    """A real number is stored in int8 with a scale, or as it is; an integer always as it is."""
    quantized = integers and np.issubdtype(dtype, np.floating)
    expected = np.dtype("int8") if quantized else dtype
    if tensor.dtype != expected or tensor.is_quantized != quantized:
        raise ValueError(
            problem(
                f"a file whose tensor {tensor.name!r} is {tensor.dtype} with the scale "
                f"{tensor.scale}",
                f"{expected}{' with a scale' if quantized else ''}",
                "report this student: the converter did not do what it was told",
            )
        )
