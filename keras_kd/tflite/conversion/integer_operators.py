"""Operators that TensorFlow's converter leaves in float, or that integers compute wrongly.

Masks become numbers by CAST, and the normalization of Keras 3 subtracts by NEG; neither exists in 8
bits. A choice between 1 and 0 and a product with -1 do. A masked mean divides a sum by the number
of places that the mask leaves: the kernels of DIV for 8 bits are wrong where what is divided is one
step below 0, and TensorFlow Lite Micro's of SUM always. Means and RSQRT do the same.

An operator of several results stays in float when one of them is not read (the forget gate in the
first step of an LSTM) and the quantizer happens to see it before it has removed what it added for
that result: the same bytes gave integers in 8 of 25 runs. Slices take its place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_kd.tflite.contents.packing import operator_code, operator_name

# The largest number that 8 bits count to, from 0.
_STEPS = 255
_HANDED_ON = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE", "TRANSPOSE")


def use_integer_operators(model: Any, integers: str) -> bool:
    """Compute masks, changes of sign and parts of tensors by operators that integers have.

    Args:
        model: the `ModelT` of a float32 file that is not calibrated yet. It is changed, and
            computes the same.
        integers: the type in which it will compute, "int8" or "int16".

    Returns:
        Whether anything was changed.
    """
    changed = [_replace(model, graph) for graph in model.subgraphs]
    changed += [_slice(model, graph) for graph in model.subgraphs]
    if integers == "int16":
        changed += [_square(model, graph) for graph in model.subgraphs]
    if any(changed):
        _forget_unused(model)
    return any(changed)


def with_masked_means(model: Any, calibrate: Callable[[Any], Any]) -> Any:
    """The file with calibrated ranges, in which masked means are products of integers.

    Args:
        model: the `ModelT` of a float32 file after `use_integer_operators`. It stays as it is.
        calibrate: returns the `ModelT` of a file with its ranges.

    Returns:
        The `ModelT` of the calibrated file.
    """
    names = {operator_name(code) for code in model.operatorCodes or []}
    if not {"DIV", "SUM"} <= names:
        return calibrate(model)
    model = copy.deepcopy(model)
    graph = model.subgraphs[0]
    means = _masked_means(model, graph)
    if not means:
        return calibrate(model)
    _forget_unused(model)
    # An output shares its memory with no other tensor, whose numbers would be in its range.
    outputs = list(map(int, graph.outputs))
    graph.outputs = outputs + [index for mean in means for index in mean.apart]
    model = calibrate(model)
    graph = model.subgraphs[0]
    graph.outputs = outputs
    for mean in means:
        found = graph.tensors[mean.share].quantization
        if mean.count is not None and mean.count <= _STEPS:
            # A whole number of steps for each place.
            found.min, found.max = [0.0], [_STEPS / (_STEPS // mean.count) / mean.count]
    return model


def float_constant(model: Any, graph: Any, value: float | np.ndarray, name: str) -> int:
    """The index of a new tensor that holds real numbers."""
    return _constant(model, graph, np.asarray(value, "<f4"), name)


def _constant(model: Any, graph: Any, values: np.ndarray, name: str) -> int:
    """The index of a new tensor that holds an array of type "<f4" or "<i4"."""
    from ai_edge_litert import schema_py_generated as schema

    types = {"<f4": schema.TensorType.FLOAT32, "<i4": schema.TensorType.INT32}
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
    graph.tensors.append(
        schema.TensorT(
            shape=list(values.shape),
            type=types[values.dtype.str],
            buffer=len(model.buffers) - 1,
            name=name.encode(),
        )
    )
    return len(graph.tensors) - 1


def float_values(model: Any, graph: Any, index: int) -> np.ndarray | None:
    """The stored real numbers of a tensor; None where it is computed or holds something else."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = graph.tensors[index]
    stored = model.buffers[tensor.buffer].data
    if stored is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.asarray(stored, np.uint8).view("<f4")


def makers_of(model: Any, graph: Any) -> dict[int, tuple[str, Any]]:
    """By index of a tensor the name of the operator that computes it, and the operator."""
    names = [operator_name(code) for code in model.operatorCodes or []]
    return {
        int(index): (names[operator.opcodeIndex], operator)
        for operator in graph.operators or []
        for index in operator.outputs
    }


def _replace(model: Any, graph: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    types = schema.TensorType
    changed = False
    for operator in graph.operators or []:
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        if name not in ("CAST", "NEG"):
            continue
        read = int(operator.inputs[0])
        pair = graph.tensors[read].type, graph.tensors[int(operator.outputs[0])].type
        if name == "CAST" and pair == (types.BOOL, types.FLOAT32):
            one, zero = (float_constant(model, graph, v, f"mask/{v:g}") for v in (1.0, 0.0))
            operator.inputs, new = [read, one, zero], "SELECT_V2"
            options = schema.BuiltinOptions.SelectV2Options, schema.SelectV2OptionsT()
        elif name == "NEG" and pair == (types.FLOAT32, types.FLOAT32):
            operator.inputs, new = [read, float_constant(model, graph, -1.0, "minus_one")], "MUL"
            options = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        else:
            continue
        operator.opcodeIndex = operator_code(model, new)
        operator.builtinOptionsType, operator.builtinOptions = options
        changed = True
    return changed


def _slice(model: Any, graph: Any) -> bool:
    """Take the parts of a tensor that are read one by one where there are others."""
    read = {int(i) for each in graph.operators or [] for i in each.inputs}
    read.update(map(int, graph.outputs))
    operators = []
    for operator in graph.operators or []:
        parts = [int(index) for index in operator.outputs]
        divided = _division(model, graph, operator) if set(parts) - read else None
        if divided is None:
            operators.append(operator)
            continue
        source, axis, sizes, is_unpacked = divided
        ends = np.cumsum(sizes)
        operators += [
            _strided_slice(model, graph, (source, part), axis, (end - size, end), is_unpacked)
            for part, size, end in zip(parts, sizes, ends, strict=True)
            if part in read
        ]
    is_changed = operators != list(graph.operators or [])
    graph.operators = operators
    return is_changed


def _division(model: Any, graph: Any, operator: Any) -> tuple[int, int, list[int], bool] | None:
    """What an operator divides into parts, along which axis, how long they are, if it goes."""
    name = operator_name(model.operatorCodes[operator.opcodeIndex])
    if name not in ("SPLIT", "SPLIT_V", "UNPACK"):
        return None
    if name == "UNPACK":
        source, axis = int(operator.inputs[0]), operator.builtinOptions.axis
    else:
        source, place = (1, 0) if name == "SPLIT" else (0, 2)
        source, place = int(operator.inputs[source]), int(operator.inputs[place])
        stored = model.buffers[graph.tensors[place].buffer].data
        if stored is None:
            return None
        axis = int(np.asarray(stored, np.uint8).view("<i4")[0])
    axis %= len(graph.tensors[source].shape)
    if name == "UNPACK":
        return source, axis, [1] * len(operator.outputs), True
    sizes = [int(graph.tensors[int(index)].shape[axis]) for index in operator.outputs]
    return source, axis, sizes, False


def _strided_slice(
    model: Any,
    graph: Any,
    ends: tuple[int, int],
    axis: int,
    limits: tuple[int, int],
    is_unpacked: bool,
) -> Any:
    """An operator that reads one tensor, from and to limits in an axis, and writes another."""
    from ai_edge_litert import schema_py_generated as schema

    source, part = ends
    rank = len(graph.tensors[source].shape)
    places = np.zeros((3, rank), "<i4")
    places[:, axis] = *limits, 1
    places[2] = 1
    others = sum(1 << each for each in range(rank) if each != axis)
    name = (graph.tensors[part].name or b"").decode()
    constants = [_constant(model, graph, v, f"{name}/limits_{i}") for i, v in enumerate(places)]
    return schema.OperatorT(
        opcodeIndex=operator_code(model, "STRIDED_SLICE"),
        inputs=[source, *constants],
        outputs=[part],
        builtinOptionsType=schema.BuiltinOptions.StridedSliceOptions,
        builtinOptions=schema.StridedSliceOptionsT(
            beginMask=others, endMask=others, shrinkAxisMask=(1 << axis) if is_unpacked else 0
        ),
    )


def _square(model: Any, graph: Any) -> bool:
    """Square differences by a product: their own operator has no 16 bits."""
    from ai_edge_litert import schema_py_generated as schema

    operators = []
    for operator in graph.operators or []:
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        if name == "SQUARED_DIFFERENCE":
            index = _like(graph, int(operator.outputs[0]), b"/difference")
            operators.append(
                schema.OperatorT(
                    opcodeIndex=operator_code(model, "SUB"),
                    inputs=operator.inputs,
                    outputs=[index],
                    builtinOptionsType=schema.BuiltinOptions.SubOptions,
                    builtinOptions=schema.SubOptionsT(),
                )
            )
            operator.opcodeIndex = operator_code(model, "MUL")
            operator.inputs = [index, index]
            operator.builtinOptionsType = schema.BuiltinOptions.MulOptions
            operator.builtinOptions = schema.MulOptionsT()
        operators.append(operator)
    is_changed = len(operators) > len(graph.operators or [])
    graph.operators = operators
    return is_changed


class _MaskedMean(NamedTuple):
    """What became of a masked mean.

    Attributes:
        share: the index of the share of places that the mask leaves.
        apart: the indices of what is multiplied.
        count: how many places there are; None where that is open.
    """

    share: int
    apart: tuple[int, int]
    count: int | None


def _masked_means(model: Any, graph: Any) -> list[_MaskedMean]:
    """Turn masked means from quotients of sums into products, and return them."""
    from ai_edge_litert import schema_py_generated as schema

    makers = makers_of(model, graph)
    found, operators = [], []
    for operator in graph.operators or []:
        operators.append(operator)
        sums = [makers.get(int(index), ("", None)) for index in operator.inputs[:2]]
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        if name != "DIV" or [made for made, _ in sums] != ["SUM", "SUM"]:
            continue
        counts = {_count_of(graph, made) for _, made in sums}
        is_mask = _is_mask(model, graph, makers, int(sums[1][1].inputs[0]))
        if len(counts) > 1 or not is_mask or not all(_is_read_once(graph, m) for _, m in sums):
            continue
        for _, made in sums:
            made.opcodeIndex = operator_code(model, "MEAN")
        mean, share = map(int, operator.inputs[:2])
        root = _like(graph, share, b"/rsqrt")
        half = _like(graph, mean, b"/half")
        rsqrt = schema.OperatorT(
            opcodeIndex=operator_code(model, "RSQRT"), inputs=[share], outputs=[root]
        )
        product = copy.copy(operator)
        product.inputs, product.outputs = [mean, root], [half]
        operator.inputs = [half, root]
        for each in (product, operator):
            each.opcodeIndex = operator_code(model, "MUL")
            each.builtinOptionsType = schema.BuiltinOptions.MulOptions
            each.builtinOptions = schema.MulOptionsT()
        operators[-1:] = [rsqrt, product, operator]
        found.append(_MaskedMean(share, (mean, half), counts.pop()))
    graph.operators = operators
    return found


def _like(graph: Any, index: int, suffix: bytes) -> int:
    """The index of a new tensor like another one."""
    tensor = copy.copy(graph.tensors[index])
    tensor.name = (tensor.name or b"") + suffix
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _count_of(graph: Any, operator: Any) -> int | None:
    """How many numbers are added up for each result; None where sizes are open."""
    sizes = []
    for index in (operator.inputs[0], operator.outputs[0]):
        tensor = graph.tensors[int(index)]
        signature = getattr(tensor, "shapeSignature", None)
        if signature is not None and np.any(np.asarray(signature) < 0):
            return None
        sizes.append(int(np.prod([] if tensor.shape is None else tensor.shape)))
    return sizes[0] // sizes[1] if sizes[1] else None


def _is_read_once(graph: Any, operator: Any) -> bool:
    index = int(operator.outputs[0])
    reads = [int(i) for each in graph.operators for i in each.inputs] + list(graph.outputs)
    return reads.count(index) == 1


def _forget_unused(model: Any) -> None:
    """Leave out unused codes of operators: the calibrator needs a kernel for each."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators or []]
    used = sorted({operator.opcodeIndex for operator in operators})
    for operator in operators:
        operator.opcodeIndex = used.index(operator.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[index] for index in used]


def _is_mask(model: Any, graph: Any, makers: dict[int, tuple[str, Any]], index: int) -> bool:
    """Whether a tensor holds 1 and 0 alone, chosen by a mask."""
    while index in makers and makers[index][0] in _HANDED_ON:
        index = int(makers[index][1].inputs[0])
    name, operator = makers.get(index, ("", None))
    if name != "SELECT_V2":
        return False
    chosen = [float_values(model, graph, int(i)) for i in operator.inputs[1:]]
    return all(v is not None and np.isin(v, (0.0, 1.0)).all() for v in chosen)
