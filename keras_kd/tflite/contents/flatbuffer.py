"""What is written in a .tflite file: its FlatBuffer, read with the schema that LiteRT ships."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_kd._checks import problem

# TFLM reads weights in place with instructions that need this; the converter aligns to 4.
ALIGNMENT = 16
FILE_IDENTIFIER = b"TFL3"


class FlatBufferModel:
    """The contents of a .tflite file, unpacked.

    Args:
        content: bytes that LiteRT has loaded before.

    Raises:
        ValueError: if they cannot be unpacked.
    """

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._size = len(content)
        try:
            self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        except (IndexError, TypeError, AttributeError, ValueError, struct.error) as error:
            raise ValueError(
                problem(
                    f"{len(content)} bytes that do not follow the schema of TFLite ({error})",
                    "an undamaged .tflite model",
                    "convert the student again, or copy the file again",
                )
            ) from error

    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs in all subgraphs, sorted by name.

        The names are those of the schema, for example "CONV_2D"; custom operators go by their own
        name, for example "FlexErf".
        """
        names = (name for graph in self._model.subgraphs for name, _ in self._operators(graph))
        return dict(sorted(Counter(names).items()))

    def float_operators(self) -> list[str]:
        """The sorted names of the operators that compute in floating point.

        QUANTIZE and DEQUANTIZE, which stand where integers begin and end, are not among them.
        """
        found: set[str] = set()
        for graph in self._model.subgraphs:
            floats = self._float_tensors(graph)
            found |= {name for name, o in self._operators(graph) if floats.intersection(o.outputs)}
        return sorted(found - {"QUANTIZE", "DEQUANTIZE"})

    def weight_types(self) -> set[str]:
        """The types of the tensors whose values are stored in the file, for example {"INT8"}."""
        names = _names_by_value(self._schema.TensorType)
        return {
            names[tensor.type]
            for subgraph in self._model.subgraphs
            for tensor in subgraph.tensors
            if self._model.buffers[tensor.buffer].data is not None
        }

    def input_ranges(self) -> list[tuple[float, float] | None]:
        """For each input of the model the real numbers that it can tell apart: from, to.

        None where floats are used as they are, or where integers are no numbers but words.
        """
        graph = self._model.subgraphs[0]
        return [self._range(self._first_quantized(graph, index)) for index in graph.inputs]

    def aligned(self) -> bytes:
        """The file with every weight at a multiple of 16 bytes from its start."""
        builder = _aligning_builder(self._size)
        builder.Finish(self._model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _operators(self, graph: Any) -> Iterator[tuple[str, Any]]:
        names = [self._operator_name(code) for code in self._model.operatorCodes or []]
        for operator in graph.operators or []:
            yield names[operator.opcodeIndex], operator

    def _float_tensors(self, graph: Any) -> set[int]:
        """Indices of the floating-point tensors that something reads.

        The converter may leave an output that nothing reads in floating point.
        """
        types = self._schema.TensorType
        floats = (types.FLOAT16, types.FLOAT32, types.FLOAT64, types.BFLOAT16)
        read = {int(i) for operator in graph.operators or [] for i in operator.inputs}
        read.update(int(i) for i in graph.outputs)
        return {i for i in read if i >= 0 and graph.tensors[i].type in floats}

    def _first_quantized(self, graph: Any, index: int) -> Any:
        """The tensor itself, or what QUANTIZE makes of it if nothing else reads it."""
        readers = [reader for reader in self._operators(graph) if index in reader[1].inputs]
        if len(readers) == 1 and readers[0][0] == "QUANTIZE":
            return graph.tensors[readers[0][1].outputs[0]]
        return graph.tensors[index]

    def _range(self, tensor: Any) -> tuple[float, float] | None:
        limits = {
            self._schema.TensorType.INT8: (-128, 127),
            self._schema.TensorType.UINT8: (0, 255),
        }
        quantization = tensor.quantization
        if tensor.type not in limits or quantization is None or not np.size(quantization.scale):
            return None
        scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0])
        low, high = limits[tensor.type]
        return scale * (low - zero_point), scale * (high - zero_point)

    def _operator_name(self, code: Any) -> str:
        # Old files have their operator in the deprecated field, which holds at most 127.
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        if builtin == self._schema.BuiltinOperator.CUSTOM:
            return (code.customCode or b"CUSTOM").decode(errors="replace")
        names = _names_by_value(self._schema.BuiltinOperator)
        return names.get(builtin, f"OPERATOR_{builtin}")


def _names_by_value(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


def _aligning_builder(size: int) -> Any:
    import flatbuffers

    class AligningBuilder(flatbuffers.Builder):
        """The only vectors of bytes that numpy hands to it are weights."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype == np.uint8:
                self.Prep(ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)

    return AligningBuilder(size)
