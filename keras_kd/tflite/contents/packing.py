"""A .tflite file as a `ModelT` of the schema that LiteRT ships: unpacked, read, packed again."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from keras_kd.tflite.contents.byte_kinds import IDENTIFIER, check_references

# TFLM reads weights in place with instructions that need this; the converter aligns to 4.
ALIGNMENT = 16
FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")


def unpacked(content: bytes) -> Any:
    """A file as a `ModelT` of the schema, to be changed and `packed` again."""
    from ai_edge_litert import schema_py_generated as schema

    check_references(content)
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def packed(model: Any, size: int) -> bytes:
    """The bytes of a `ModelT`, aligned, which are about that many."""
    builder = _aligning_builder(size)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _aligning_builder(size: int) -> Any:
    import flatbuffers

    class AligningBuilder(flatbuffers.Builder):
        """The only vectors of bytes that numpy hands to it are weights."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype == np.uint8:
                self.Prep(ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)

    return AligningBuilder(size)


def operator_name(code: Any) -> str:
    """The name of an operator code in the schema, or a custom operator's own."""
    from ai_edge_litert import schema_py_generated as schema

    # Old files have their operator in the deprecated field, which holds at most 127.
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return (code.customCode or b"CUSTOM").decode(errors="replace")
    names = names_by_value(schema.BuiltinOperator)
    return names.get(builtin, f"OPERATOR_{builtin}")


def operator_code(model: Any, name: str) -> int:
    """The index of an operator in the codes of a `ModelT`, to which it is added if need be."""
    from ai_edge_litert import schema_py_generated as schema

    codes = model.operatorCodes
    names = [operator_name(code) for code in codes]
    if name not in names:
        builtin = getattr(schema.BuiltinOperator, name)
        codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=builtin, builtinCode=builtin))
        names.append(name)
    return names.index(name)


@cache
def names_by_value(enumeration: type) -> dict[int, str]:
    """The names in an enumeration of the schema."""
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


def check_structure(model: Any) -> None:
    """Refuse numbers of parts that are not there; empty lists take the place of missing ones.

    Raises:
        ValueError: if there are some, or if there is no graph.
    """
    if not model.subgraphs:
        raise ValueError("it has no graph")
    model.operatorCodes, model.buffers = model.operatorCodes or [], model.buffers or []
    for graph in model.subgraphs:
        graph.tensors, graph.operators = graph.tensors or [], graph.operators or []
        count = len(graph.tensors)
        for tensor in graph.tensors:
            _check_numbers("buffer", [tensor.buffer], 0, len(model.buffers))
        _fill(graph)
        for kind in ("inputs", "outputs"):
            _check_numbers("tensor", getattr(graph, kind), 0, count)
        for operator in graph.operators:
            _check_numbers("operator code", [operator.opcodeIndex], 0, len(model.operatorCodes))
            _fill(operator)
            for kind in ("inputs", "outputs"):
                # -1 represents an input that is left out.
                _check_numbers("tensor", getattr(operator, kind), -1, count)


def _fill(part: Any) -> None:
    for kind in ("inputs", "outputs"):
        # flatbuffers returns a vector that was not written as None or 0.
        if not isinstance(getattr(part, kind), np.ndarray):
            setattr(part, kind, np.empty(0, np.int32))


def _check_numbers(what: str, numbers: Any, low: int, end: int) -> None:
    numbers = np.asarray(numbers)
    if numbers.size and not low <= int(numbers.min()) <= int(numbers.max()) < end:
        raise ValueError(f"it refers to the {what} {int(numbers.max())} of {end}")


def shape_of(tensor: Any) -> tuple[int | None, ...]:
    """The shape of a tensor; None where any size can be fed."""
    sizes = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    signature = tensor.shapeSignature
    if signature is None or len(signature) != len(sizes):
        return tuple(sizes)
    return tuple(
        None if declared == -1 else size for size, declared in zip(sizes, signature, strict=True)
    )


def numpy_type(name: str) -> np.dtype:
    """The type of a tensor as NumPy, or the package that Keras uses beside it, names it."""
    if name in ("STRING", "RESOURCE", "VARIANT", ""):
        return np.dtype("S" if name == "STRING" else "O")
    name = name.lower()
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name, "O"))


def stored_bytes(buffer: Any) -> int:
    """How many bytes a buffer has, in the file's tables or behind them."""
    return int(buffer.size) if buffer.data is None else len(buffer.data)


def text_of(stored: bytes | None) -> str:
    """A name as text; "" where there is none."""
    return (stored or b"").decode(errors="replace")


def scales_of(tensor: Any) -> int:
    """How many scales a tensor has: 0 for one that is not quantized."""
    quantization = tensor.quantization
    return 0 if quantization is None or quantization.scale is None else len(quantization.scale)


def real_numbers(type_name: str, stored: Any) -> np.ndarray:
    """The stored values of a floating-point tensor as they are; none of another type."""
    if type_name not in FLOATS or stored is None:
        return np.empty(0, np.float32)
    content = np.asarray(stored, np.uint8).tobytes()
    width = {"FLOAT64": 8, "FLOAT32": 4}.get(type_name, 2)
    content = content[: len(content) // width * width]
    if type_name == "BFLOAT16":
        # It is the upper half of a float32.
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, f"<f{width}")
