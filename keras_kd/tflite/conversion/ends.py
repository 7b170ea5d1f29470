"""The inputs, outputs and states of a file: how they store real numbers, how states begin."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_kd._checks import problem, three_parts
from keras_kd._representative import Ranges, usual_range
from keras_kd._representative.evidence import first_scaling
from keras_kd.tflite.contents.packing import operator_code, operator_name
from keras_kd.tflite.contents.state import NEXT, kept_tensors
from keras_kd.tflite.conversion.forms import Form
from keras_kd.tflite.conversion.quantizer import reshape
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.student import Signature

BYTES = ("int8", "uint8")


def check_inputs(form: Form, signature: Signature, input_type: Any) -> None:
    """Refuse inputs that cannot have the requested type, or that need another one.

    Args:
        form: the requested form.
        signature: the student.
        input_type: as for `convert`.

    Raises:
        ValueError: if none of them holds real numbers, or if pixels are given as integers and
            rescaled as real numbers in a form of integers.
    """
    integers = [tensor for tensor in signature.inputs if tensor.dtype.kind != "f"]
    if input_type is not None and len(integers) == len(signature.inputs):
        raise problem(
            f"input_type={input_type!r} for a student with the inputs "
            f"{', '.join(map(str, integers))}",
            "real numbers in an input: integers stay as they are",
            "leave input_type out, or build the student on a float32 Input",
        )
    pixels = [tensor for tensor in integers if tensor.dtype == np.uint8]
    if form.integers == "int8" and pixels and first_scaling(signature.model) is not None:
        raise problem(
            f"quantization='int8' for a student that rescales the integers of its input "
            f"{pixels[0]}, which computes in floating point",
            "an Input of real numbers, which a file can store as uint8",
            "build the student without dtype='uint8', copy the weights "
            "(student.get_weights()), calibrate on the same pixels as float32 and pass "
            "input_type='uint8'",
        )


def byte_ranges(
    signature: Signature, ranges: Ranges, examples: Mapping[str, np.ndarray] | None
) -> dict[str, tuple[float, float]]:
    """From where to where the bytes of a camera or a sensor reach, by the names of inputs.

    What is calibrated ends at the largest number seen: 254 pixels would be spread over 255 steps.

    Args:
        signature: the student.
        ranges: those that the user gives.
        examples: those of the calibration, whose range is taken where the user gives none and
            it is a usual one.
    """
    found = {}
    for tensor in signature.own_inputs:
        limits = ranges[tensor.name]
        if limits is None and examples is not None and tensor.dtype.kind == "f":
            limits = usual_range(examples[tensor.name], first_scaling(signature.model) is not None)
        if limits is not None:
            found[tensor.name] = limits
    return found


def warn_of_other_ranges(model: TFLiteModel, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Name inputs whose bytes do not mean what they should: by more than half a step.

    Args:
        model: the file.
        ranges: from where to where they should reach, by the names of inputs.
    """
    for tensor in model.inputs:
        if tensor.name not in ranges or not tensor.is_quantized:
            continue
        ends = np.iinfo(tensor.dtype)
        stored = tensor.dequantize(np.array([ends.min, ends.max], tensor.dtype))
        wanted = ranges[tensor.name]
        # Half a step, and what float32 rounds.
        if np.abs(stored - wanted).max() > 0.51 * tensor.scale:
            low, high = wanted
            warnings.warn(
                three_parts(
                    f"an input {tensor.name!r} whose {tensor.dtype.name} represent "
                    f"{stored[0]:.4g} to {stored[1]:.4g}",
                    f"{low:g} to {high:g}, for bytes that arrive as they are",
                    f"pass input_range=({low:g}, {high:g}) to quantize_aware if the student is "
                    "quantization-aware; a range has to hold 0; or quantize what you feed with the "
                    "scale and the zero point of the input",
                ),
                stacklevel=3,
            )


def separate_outputs(model: Any) -> bool:
    """Give each output a separate tensor.

    The output of a stateful GRU is its next state, and a model may name one tensor twice. The
    converter makes a single tensor of both, which has one name in runtimes.

    Args:
        model: the `ModelT` of a file with a signature. It gets a copy for each further name.

    Returns:
        Whether there is such a name.
    """
    [signature] = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    places: dict[int, list[int]] = {}
    for place, index in enumerate(map(int, graph.outputs)):
        places.setdefault(index, []).append(place)
    outputs = list(graph.outputs)
    for entry in sorted(signature.outputs, key=lambda entry: entry.name):
        same = places.get(int(entry.tensorIndex), [])
        if len(same) > 1:
            entry.tensorIndex = outputs[same.pop()] = _copied(model, graph, entry.tensorIndex)
    if outputs == list(graph.outputs):
        return False
    graph.outputs = np.array(outputs, np.int32)
    return True


def _copied(model: Any, graph: Any, index: int) -> int:
    """The number of a new tensor into which another is copied."""
    tensor = copy.copy(graph.tensors[index])
    # Its values are computed, also where those of the other are stored.
    tensor.buffer = 0
    graph.tensors.append(tensor)
    number = len(graph.tensors) - 1
    # What a file of integers gives in real numbers is copied as integers.
    for maker in graph.operators:
        name = operator_name(model.operatorCodes[maker.opcodeIndex])
        if index in maker.outputs and name == "DEQUANTIZE":
            copying = copy.copy(maker)
            copying.outputs = np.array([number], np.int32)
            break
    else:
        sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        copying = reshape(model, graph, index, number, list(map(int, sizes)))
    graph.operators = [*graph.operators, copying]
    return number


def equalize_states(model: Any) -> bool:
    """Have each state come in as it goes out, so that a device copies its bytes.

    Ranges are read for inputs and outputs apart, and a state goes in as zeros once more than it
    comes out; inputs and outputs may have other types, too. Where scales or types differ, a
    QUANTIZE behind the input turns one into the other.

    Args:
        model: the `ModelT` of a file with a signature. It is changed.

    Returns:
        Whether a state came in in another form.
    """
    [signature] = model.signatureDefs
    outputs = {entry.name: entry.tensorIndex for entry in signature.outputs}
    graph = model.subgraphs[signature.subgraphIndex]
    changed = False
    for entry in signature.inputs:
        source = outputs.get(entry.name + NEXT.encode())
        if source is not None:
            changed |= _take_as(model, graph, entry, graph.tensors[source])
    return changed


def _take_as(model: Any, graph: Any, entry: Any, source: Any) -> bool:
    """Have an input stored as `source` is; whether that changed something."""
    from ai_edge_litert import schema_py_generated as schema

    index = int(entry.tensorIndex)
    tensor = graph.tensors[index]
    if tensor.type == source.type and _scale(tensor) == _scale(source):
        return False
    readers = {
        operator_name(model.operatorCodes[operator.opcodeIndex])
        for operator in graph.operators
        if index in operator.inputs
    }
    if readers == {"QUANTIZE"}:
        # Those of the converter, behind an input of real numbers or of uint8.
        tensor.type, tensor.quantization = source.type, copy.deepcopy(source.quantization)
        return True
    taken = copy.copy(tensor)
    taken.type, taken.quantization = source.type, copy.deepcopy(source.quantization)
    graph.tensors.append(taken)
    number = len(graph.tensors) - 1
    graph.inputs = np.array([number if i == index else i for i in graph.inputs], np.int32)
    entry.tensorIndex = number
    requantize = schema.OperatorT(
        opcodeIndex=operator_code(model, "QUANTIZE"),
        inputs=np.array([number], np.int32),
        outputs=np.array([index], np.int32),
        builtinOptionsType=schema.BuiltinOptions.QuantizeOptions,
        builtinOptions=schema.QuantizeOptionsT(),
    )
    graph.operators = [requantize, *graph.operators]
    return True


def _scale(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point; None of real numbers."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return None
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])


_TYPES = {"FLOAT32": np.float32, "INT8": np.int8, "INT16": np.int16}


def reset_states(model: Any) -> bool:
    """Put an operator in front that sets each tensor back that is kept between calls.

    A fused LSTM keeps its states in variable tensors. Apps for phones and browsers have no call
    that resets them.

    Args:
        model: the `ModelT` of a file that the converter has made of a student without state. It
            is changed: it gives the same result in every call.

    Returns:
        Whether there is such a tensor.
    """
    changed = [_begin_with_zeros(model, graph) for graph in model.subgraphs]
    return any(changed)


def _begin_with_zeros(model: Any, graph: Any) -> bool:
    kept = sorted(kept_tensors(graph))
    operators = [_set_to(model, index, _zeros(model, graph, index)) for index in kept]
    graph.operators = [*operators, *(graph.operators or [])]
    return bool(kept)


def _zeros(model: Any, graph: Any, index: int) -> int:
    """The index of a new constant tensor: real zeros, stored as the state is."""
    from ai_edge_litert import schema_py_generated as schema

    state = graph.tensors[index]
    types = {getattr(schema.TensorType, name): dtype for name, dtype in _TYPES.items()}
    points = getattr(state.quantization, "zeroPoint", None)
    zero = int(points[0]) if points is not None and len(points) else 0
    values = np.full(state.shape, zero, types[state.type])
    model.buffers.append(schema.BufferT(data=values.ravel().view(np.uint8)))
    constant = copy.copy(state)
    constant.isVariable = False
    constant.name = b""
    constant.buffer = len(model.buffers) - 1
    graph.tensors.append(constant)
    return len(graph.tensors) - 1


def _set_to(model: Any, index: int, constant: int) -> Any:
    """The operator that copies a constant into a tensor.

    It is the maximum of the constant and itself: LiteRT's RESHAPE copies nothing, but has both
    share one memory, and so do other operators that only copy.
    """
    from ai_edge_litert import schema_py_generated as schema

    return schema.OperatorT(
        opcodeIndex=operator_code(model, "MAXIMUM"),
        inputs=np.array([constant, constant], np.int32),
        outputs=np.array([index], np.int32),
        builtinOptionsType=schema.BuiltinOptions.MaximumMinimumOptions,
        builtinOptions=schema.MaximumMinimumOptionsT(),
    )
