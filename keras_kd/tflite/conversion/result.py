"""What a converted file is checked for: the converter can silently return something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.conversion.forms import DENSE, Options
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

_VARIABLE_OPERATORS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")


def check_result(
    model: TFLiteModel,
    inputs: Sequence[TensorInfo],
    options: Options,
    is_calibrated: bool,
    is_by_recipe: bool = False,
    *,
    has_chosen_scales: bool = True,
    in_layers: Callable[[list[str]], str] = lambda _: "",
) -> None:
    """Refuse a file that differs from the request.

    Args:
        model: what the converter made.
        inputs: what the student takes.
        options: those of the conversion.
        is_calibrated: whether ranges were read from examples.
        is_by_recipe: whether its layers have forms of their own, of which nothing is asserted.
        has_chosen_scales: whether the user, not a default, chose how many scales weights have.
        in_layers: from names of tensors to the layers that compute them, for messages.

    Raises:
        ValueError: if it needs more than built-in operators without variables, or if its inputs,
            its outputs, its weights, their scales or its operators differ from the request.
    """
    _check_operators(model)
    _check_inputs(model, inputs)
    if is_by_recipe:
        return
    options.form.check_contents(model.flatbuffer, is_calibrated, options.fallback, in_layers)
    if options.per_tensor and has_chosen_scales:
        _check_one_scale(model, options.per_tensor)
    _check_types(model, inputs, options)


def _check_operators(model: TFLiteModel) -> None:
    # Flex operators are not looked for: LiteRT has not loaded the file if there were any.
    refused = [name for name in model.operators if name in _VARIABLE_OPERATORS]
    if refused:
        raise problem(
            f"a student that converts to the operators {', '.join(refused)}",
            "built-in operators without variables: nothing else runs on a device",
            "replace the layers that compute them",
        )
    if model.stateful:
        raise problem(
            f"a file with state: {model.state}",
            "the same outputs in every call for the same inputs",
            "report this student: the converter gave it a state",
        )


def _check_one_scale(model: TFLiteModel, per_tensor: bool | str) -> None:
    most = model.flatbuffer.most_scales(*(["FULLY_CONNECTED"] if per_tensor == DENSE else []))
    if most > 1:
        raise problem(
            f"a file with weights of {most} scales",
            f"one scale for each tensor, for per_tensor={per_tensor!r}",
            "leave per_tensor out: a quantization-aware student has learnt its scales",
        )


def _check_inputs(model: TFLiteModel, inputs: Sequence[TensorInfo]) -> None:
    shapes = {tensor.name: tensor.shape for tensor in inputs}
    for tensor in model.inputs:
        if shapes.get(tensor.name) != tensor.shape:
            raise problem(
                f"a file with the input {tensor}",
                f"the inputs of the student, {', '.join(map(str, inputs))}",
                "report this student: the converter changed its inputs",
            )


def _check_types(model: TFLiteModel, inputs: Sequence[TensorInfo], options: Options) -> None:
    """The types at both ends."""
    dtypes = {tensor.name: tensor.dtype for tensor in inputs}
    for tensor in model.inputs:
        # A state goes in as it comes out.
        is_state = tensor.name in model.state_outputs
        stored = options.output_type if is_state else options.input_type
        _check_type(tensor, dtypes[tensor.name], stored)
    for tensor in model.outputs:
        real = tensor.is_quantized or np.issubdtype(tensor.dtype, np.floating)
        dtype = np.dtype("float32") if real else tensor.dtype
        _check_type(tensor, dtype, options.output_type)


def _check_type(tensor: TensorInfo, dtype: np.dtype, stored: str) -> None:
    """A real number is stored with a scale, or as it is; an integer always as it is."""
    quantized = stored != "float32" and np.issubdtype(dtype, np.floating)
    expected = np.dtype(stored) if quantized else dtype
    if tensor.dtype != expected or tensor.is_quantized != quantized:
        raise problem(
            f"a file whose tensor {tensor.name!r} is {tensor.dtype} with the scale {tensor.scale}",
            f"{expected}{' with a scale' if quantized else ''}",
            "report this student: the converter ignored an option",
        )
