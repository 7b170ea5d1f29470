"""Files that follow the schema of TFLite and whose graph is wrong: the same from the same seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SIZES = (-(2**31), -1000, -1, 0, 1, 2, 7, 2**16, 2**30, 2**31 - 1)


def mutated(original: bytes, seed: int, files: int) -> Iterator[tuple[str, bytes]]:
    """Make `files` mutants of a file, each with the names of what was done to it."""
    generator = random.Random(seed)
    model = unpacked(original)
    while files:
        mutant = copy.deepcopy(model)
        names = []
        try:
            for _ in range(generator.choice((1, 1, 1, 2))):
                change = generator.choice(CHANGES)
                change(mutant, generator)
                names.append(change.__name__)
            content = packed(mutant)
        except Exception:  # A part that is lost already, or a number that its field cannot hold.
            continue
        files -= 1
        yield " and ".join(names), content


def unpacked(content: bytes) -> Any:
    """The model as objects."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def packed(model: Any) -> bytes:
    """The bytes of a file."""
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def crafted(original: bytes, operator: str, position: int, index: int | None) -> bytes:
    """The file with another tensor as an input of the first operator of a kind.

    Args:
        original: the file.
        operator: the name of its kind, for example "FULLY_CONNECTED".
        position: which of its inputs.
        index: the tensor; None: this input and those behind it are left out.
    """
    model = unpacked(original)
    (first, *_) = (each for each in model.subgraphs[0].operators if _name(model, each) == operator)
    inputs = [int(number) for number in first.inputs]
    first.inputs = inputs[:position] if index is None else _with(inputs, position, index)
    return packed(model)


def _with(numbers: list[int], position: int, number: int) -> list[int]:
    return [*numbers[:position], number, *numbers[position + 1 :]]


def _name(model: Any, operator: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(name for name, value in vars(schema.BuiltinOperator).items() if value == number)


def other_input(model: Any, generator: random.Random) -> None:
    """An operator reads another tensor, one that is not there, or none."""
    _redirect(model, generator, "inputs")


def other_output(model: Any, generator: random.Random) -> None:
    """An operator writes another tensor: its own input, for example."""
    _redirect(model, generator, "outputs")


def fewer_ends(model: Any, generator: random.Random) -> None:
    """An operator lacks inputs or outputs."""
    operator = _operator(model, generator)
    kind = generator.choice(("inputs", "inputs", "outputs"))
    numbers = list(getattr(operator, kind))
    setattr(operator, kind, numbers[: generator.randrange(len(numbers) + 1)])


def more_ends(model: Any, generator: random.Random) -> None:
    """An operator has more inputs or outputs than its kind."""
    operator = _operator(model, generator)
    kind = generator.choice(("inputs", "outputs"))
    numbers = [int(number) for number in getattr(operator, kind)]
    setattr(operator, kind, numbers + [_index(model, generator)] * generator.choice((1, 5, 300)))


def other_code(model: Any, generator: random.Random) -> None:
    """An operator is of another kind."""
    code = generator.choice(model.operatorCodes)
    number = generator.choice((generator.randrange(210), generator.randrange(210), 2**31 - 1, -1))
    code.builtinCode, code.deprecatedBuiltinCode = number, min(127, max(-128, number))


def other_code_index(model: Any, generator: random.Random) -> None:
    """An operator is of the kind of another, or of none."""
    choices = [*range(len(model.operatorCodes)), len(model.operatorCodes), 2**31]
    _operator(model, generator).opcodeIndex = generator.choice(choices)


def other_version(model: Any, generator: random.Random) -> None:
    """An operator is of another version."""
    generator.choice(model.operatorCodes).version = generator.choice((0, -1, 2, 5, 12, 2**31 - 1))


def no_options(model: Any, generator: random.Random) -> None:
    """An operator has no options, or those of another."""
    operators = model.subgraphs[0].operators
    operator, other = generator.choice(operators), generator.choice(operators)
    is_none = generator.random() < 0.5
    operator.builtinOptions = None if is_none else other.builtinOptions
    operator.builtinOptionsType = 0 if is_none else other.builtinOptionsType


def other_option(model: Any, generator: random.Random) -> None:
    """A number among the options of an operator is at the end of its range."""
    holders = [o.builtinOptions for o in model.subgraphs[0].operators if o.builtinOptions]
    places = [
        (holder, name)
        for holder in holders
        for name, value in vars(holder).items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    if places:
        holder, name = generator.choice(places)
        setattr(holder, name, generator.choice(SIZES))


def other_shape(model: Any, generator: random.Random) -> None:
    """A size of a tensor is negative, zero, or more than what is stored."""
    tensor = _tensor(model, generator)
    shape = [int(size) for size in tensor.shape] if tensor.shape is not None else []
    if shape and generator.random() < 0.7:
        shape[generator.randrange(len(shape))] = generator.choice(SIZES)
    else:
        shape = [generator.choice((1, 2, 3))] * generator.choice((0, 1, 2, 3, 5, 8, 30))
    tensor.shape = np.array(shape, np.int32)


def other_signature(model: Any, generator: random.Random) -> None:
    """The open sizes of a tensor are others than its sizes."""
    sizes = [generator.choice((-1, *SIZES)) for _ in range(generator.choice((0, 1, 4, 6)))]
    _tensor(model, generator).shapeSignature = np.array(sizes, np.int32)


def other_type(model: Any, generator: random.Random) -> None:
    """A tensor is of another type: strings, resources, four bits, none."""
    _tensor(model, generator).type = generator.choice((*range(24), 100, -1))


def other_buffer(model: Any, generator: random.Random) -> None:
    """A tensor has the values of another, none, or those of a buffer that is not there."""
    count = len(model.buffers)
    choices = (0, 0, generator.randrange(count), generator.randrange(count), count, 2**31)
    _tensor(model, generator).buffer = generator.choice(choices)


def other_values(model: Any, generator: random.Random) -> None:
    """The values of a tensor are fewer, more, or extreme: sizes and indices are among them."""
    filled = [buffer for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    buffer = generator.choice(filled)
    data = np.asarray(buffer.data, np.uint8).tobytes()
    kind = generator.randrange(3)
    if kind == 0:
        data = data[: generator.randrange(len(data))]
    elif kind == 1:
        data *= generator.choice((2, 3))
    else:
        extreme = generator.choice((b"\xff", b"\x7f", b"\x80", b"\0"))
        start = 4 * generator.randrange(len(data) // 4 + 1)
        data = data[:start] + extreme * len(data[start : start + 4]) + data[start + 4 :]
    buffer.data = np.frombuffer(data, np.uint8)


def other_place(model: Any, generator: random.Random) -> None:
    """The values of a tensor are said to lie at another place of the file."""
    buffer = generator.choice(model.buffers)
    buffer.offset = generator.choice((1, 2, 100, 2**31, 2**63, 2**64 - 8))
    buffer.size = generator.choice((1, 2, 100, 2**31, 2**63, 2**64 - 8))


def other_quantization(model: Any, generator: random.Random) -> None:
    """A tensor has no scale, two, NaN, zero, or one along an axis that is not there."""
    tensors = [t for t in model.subgraphs[0].tensors if t.quantization is not None]
    if not tensors:
        return
    tensor = generator.choice(tensors)
    quantization = tensor.quantization = copy.copy(tensor.quantization)
    kind = generator.randrange(5)
    if kind == 0:
        tensor.quantization = None
    elif kind == 1:
        quantization.quantizedDimension = generator.choice(SIZES)
    elif kind == 2:
        quantization.scale = np.array([generator.choice((0, -1, 1e38, np.nan, np.inf))], "f4")
    elif kind == 3:
        quantization.scale = np.full(generator.choice((0, 2, 5)), 0.5, np.float32)
    else:
        quantization.zeroPoint = np.array([generator.choice((-1, 200, -(2**62), 2**62))], np.int64)


def other_ends(model: Any, generator: random.Random) -> None:
    """The model has other inputs or outputs, ones that are not there, or none."""
    graph = model.subgraphs[0]
    kind = generator.choice(("inputs", "outputs"))
    numbers = [int(number) for number in getattr(graph, kind)]
    if generator.random() < 0.3:
        setattr(graph, kind, [])
    elif generator.random() < 0.3:
        setattr(graph, kind, numbers * 2)
    else:
        numbers[generator.randrange(len(numbers))] = _index(model, generator)
        setattr(graph, kind, numbers)


def other_order(model: Any, generator: random.Random) -> None:
    """Operators come in another order, so that one reads what is not written yet."""
    generator.shuffle(model.subgraphs[0].operators)


def removed_operator(model: Any, generator: random.Random) -> None:
    """An operator is missing."""
    operators = model.subgraphs[0].operators
    if len(operators) > 1:
        operators.pop(generator.randrange(len(operators)))


def cycle(model: Any, generator: random.Random) -> None:
    """A graph calls itself, one that is not there, or one that is called by it."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    kind = generator.choice(("WHILE", "IF", "CALL_ONCE", "CALL"))
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(127, code.builtinCode)
    code.version = 1
    model.operatorCodes.append(code)
    if generator.random() < 0.5:
        model.subgraphs.append(copy.deepcopy(graph))
    target = generator.choice((0, 0, 1, 5, -1))
    options = {
        "WHILE": "WhileOptions",
        "IF": "IfOptions",
        "CALL_ONCE": "CallOnceOptions",
        "CALL": "CallOptions",
    }[kind]
    operator = schema.OperatorT()
    operator.builtinOptions = getattr(schema, f"{options}T")()
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    for name in vars(operator.builtinOptions):
        setattr(operator.builtinOptions, name, max(0, target) if kind == "CALL" else target)
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = list(graph.inputs), list(graph.outputs)
    graph.operators.insert(generator.randrange(len(graph.operators) + 1), operator)


def lost_part(model: Any, generator: random.Random) -> None:
    """A list that every file has is empty or missing."""
    holder, name = generator.choice(
        [
            (model, "buffers"),
            (model, "operatorCodes"),
            (model, "subgraphs"),
            (model, "signatureDefs"),
            (model.subgraphs[0], "tensors"),
            (model.subgraphs[0], "operators"),
        ]
    )
    setattr(holder, name, generator.choice(([], None)))


def other_signature_def(model: Any, generator: random.Random) -> None:
    """The signature names tensors that are not there, or two by one name."""
    if not model.signatureDefs:
        return
    signature = model.signatureDefs[0]
    entries = [*(signature.inputs or []), *(signature.outputs or [])]
    if not entries or generator.random() < 0.2:
        signature.subgraphIndex = generator.choice((1, 7, 2**31))
    elif generator.random() < 0.5:
        generator.choice(entries).tensorIndex = generator.choice((0, 1, 1000, 2**31))
    else:
        generator.choice(entries).name = generator.choice((None, b"", b"\xff\xfe", b"x" * 5000))


def _redirect(model: Any, generator: random.Random, kind: str) -> None:
    operator = _operator(model, generator)
    numbers = [int(number) for number in getattr(operator, kind)]
    if numbers:
        numbers[generator.randrange(len(numbers))] = _index(model, generator)
        setattr(operator, kind, numbers)


def _index(model: Any, generator: random.Random) -> int:
    count = len(model.subgraphs[0].tensors)
    some = generator.randrange(count) if count else 0
    return generator.choice((-1, -1, some, some, some, count, -2, 2**31 - 1))


def _operator(model: Any, generator: random.Random) -> Any:
    return generator.choice(model.subgraphs[0].operators)


def _tensor(model: Any, generator: random.Random) -> Any:
    return generator.choice(model.subgraphs[0].tensors)


CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    other_input,
    other_output,
    fewer_ends,
    more_ends,
    other_code,
    other_code_index,
    other_version,
    no_options,
    other_option,
    other_shape,
    other_signature,
    other_type,
    other_buffer,
    other_values,
    other_place,
    other_quantization,
    other_ends,
    other_order,
    removed_operator,
    cycle,
    lost_part,
    other_signature_def,
)
