"""What is written in a .tflite file: its FlatBuffer, read with the schema that LiteRT ships.

Nothing of LiteRT but the schema is imported, and no file has to be one that LiteRT can load.
"""

from __future__ import annotations

import copy
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.contents.packing import (
    FLOATS,
    check_structure,
    names_by_value,
    numpy_type,
    operator_name,
    packed,
    real_numbers,
    scales_of,
    shape_of,
    stored_bytes,
    text_of,
    unpacked,
)
from keras_kd.tflite.contents.state import State, read_state
from keras_kd.tflite.tensors import TensorInfo

_ACTIVATIONS = (
    "ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "LOG_SOFTMAX", "L2_NORMALIZATION",
    "PRELU", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "SOFTMAX", "TANH",
)  # fmt: skip
_WITHOUT_CHANGE = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "TRANSPOSE")


@dataclass(frozen=True)
class FileTensor:
    """One tensor as it is written in a file.

    Attributes:
        name: its name in the file, or its number where names were stripped.
        subgraph: the number of the subgraph that it belongs to.
        type: the name of its type in the schema, for example "INT8".
        shape: its shape, () also where it is not known.
        bytes: how many bytes of values are stored for it: 0 unless it is constant.
        scales: how many scales it has: 0 if it is not quantized, 1 or one for each channel.
        is_read: whether an operator reads it or the subgraph returns it.
    """

    name: str
    subgraph: int
    type: str
    shape: tuple[int, ...]
    bytes: int
    scales: int
    is_read: bool

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.type in FLOATS


class FlatBufferModel:
    """The contents of a .tflite file, unpacked.

    Args:
        content: the bytes, from anywhere: no runtime needs to have loaded them before.

    Attributes:
        content: those bytes.

    Raises:
        ValueError: if they cannot be unpacked, or refer to what is not there.
    """

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self.content = content
        try:
            self._model = unpacked(content)
            check_structure(self._model)
        except (IndexError, TypeError, AttributeError, ValueError, struct.error) as error:
            raise problem(
                f"{len(content)} bytes that do not follow the schema of TFLite ({error})",
                "an undamaged .tflite model",
                "convert the student again, or copy the file again",
            ) from error

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The inputs, in the order of the file; None in a shape where any size can be fed.

        Names are those of the signature, if the file has exactly one, else those of the tensors.
        """
        return self._ends("inputs")

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The outputs, likewise."""
        return self._ends("outputs")

    def _ends(self, kind: str) -> tuple[TensorInfo, ...]:
        graph, signatures = self._model.subgraphs[0], self._model.signatureDefs or []
        names = {}
        if len(signatures) == 1 and not signatures[0].subgraphIndex:
            entries = getattr(signatures[0], kind) or []
            names = {entry.tensorIndex: text_of(entry.name) for entry in entries}
        return tuple(self._end(graph, int(index), names) for index in getattr(graph, kind))

    def _end(self, graph: Any, index: int, names: Mapping[int, str]) -> TensorInfo:
        tensor = graph.tensors[index]
        # With a scale for each channel there is none for the tensor.
        scale, zero_point = 0.0, 0
        if scales_of(tensor) == 1:
            zero_points = tensor.quantization.zeroPoint
            scale = float(tensor.quantization.scale[0])
            zero_point = 0 if zero_points is None or not len(zero_points) else int(zero_points[0])
        return TensorInfo(
            name=names.get(index) or text_of(tensor.name) or f"tensor {index}",
            shape=shape_of(tensor),
            dtype=numpy_type(names_by_value(self._schema.TensorType).get(tensor.type, "")),
            scale=scale,
            zero_point=zero_point,
        )

    def custom_operators(self) -> list[str]:
        """The sorted names of the operators that are not in the schema."""
        custom = {
            operator_name(code)
            for code in self._model.operatorCodes
            if max(code.builtinCode, code.deprecatedBuiltinCode)
            == self._schema.BuiltinOperator.CUSTOM
        }
        return sorted(custom & set(self.operator_counts()))

    def operator_counts(self) -> dict[str, int]:
        """How often each operator occurs in all subgraphs, sorted by name.

        The names are those of the schema, for example "CONV_2D"; custom operators go by their own
        name, for example "FlexErf".
        """
        names = (name for graph in self._model.subgraphs for name, _ in self._operators(graph))
        return dict(sorted(Counter(names).items()))

    @cached_property
    def state(self) -> State:
        """What the file keeps from one call to the next."""
        return read_state(self._model, self._operator_names)

    def float_operators(self) -> list[str]:
        """The sorted names of the operators that compute in floating point.

        QUANTIZE and DEQUANTIZE, which stand where integers begin and end, are not among them.
        """
        found: set[str] = set()
        for graph in self._model.subgraphs:
            floats = self._float_tensors(graph)
            found |= {name for name, o in self._operators(graph) if floats.intersection(o.outputs)}
        return sorted(found - {"QUANTIZE", "DEQUANTIZE"})

    def float_results(self) -> list[str]:
        """The names of the tensors that operators compute as or from floating-point numbers.

        Those of QUANTIZE and DEQUANTIZE are left out, as in `float_operators`.
        """
        found = []
        for graph in self._model.subgraphs:
            floats = self._float_tensors(graph)
            for name, operator in self._operators(graph):
                if name not in ("QUANTIZE", "DEQUANTIZE") and floats.intersection(
                    [*operator.inputs, *operator.outputs]
                ):
                    found += [text_of(graph.tensors[int(i)].name) for i in operator.outputs]
        return found

    def hybrid_operators(self) -> list[str]:
        """The sorted names of the operators that give real numbers and read integers as weights.

        DEQUANTIZE is among them where it turns stored integers into real weights.
        """
        return sorted({name for name, _, _ in self.hybrid_weights()})

    def hybrid_weights(self) -> set[tuple[str, str, int]]:
        """The integers that operators read as weights and give real numbers of.

        Each is the name of the operator, the type of the weights, such as "INT4", and how many
        scales they have.
        """
        types = names_by_value(self._schema.TensorType)
        found = set()
        for graph in self._model.subgraphs:
            floats = self._float_tensors(graph)
            for name, operator in self._operators(graph):
                if not floats.intersection(operator.outputs):
                    continue
                read = [graph.tensors[index] for index in operator.inputs if index >= 0]
                found |= {
                    (name, types.get(tensor.type, ""), scales_of(tensor))
                    for tensor in read
                    if self._is_quantized(tensor)
                }
        return found

    def most_scales(self, *operators: str) -> int:
        """The largest number of scales of a stored tensor: 1, or one for each channel.

        Args:
            operators: count only what these read; by default everything.
        """
        return max(
            (
                scales_of(graph.tensors[index])
                for graph in self._model.subgraphs
                for name, operator in self._operators(graph)
                for index in operator.inputs
                if (not operators or name in operators)
                and index >= 0
                and self._model.buffers[graph.tensors[index].buffer].data is not None
            ),
            default=0,
        )

    def with_first_scale(self, name: str) -> bytes:
        """The file in which the weights of an operator all have the scale of their first channel.

        It is what runtimes compute that have no scales for each channel.
        """
        model = copy.deepcopy(self._model)
        for graph in model.subgraphs:
            for found, operator in self._operators(graph):
                for index in operator.inputs if found == name else ():
                    quantization = graph.tensors[index].quantization if index >= 0 else None
                    if quantization is not None and quantization.scale is not None:
                        quantization.scale = quantization.scale[:1]
                        quantization.zeroPoint = quantization.zeroPoint[:1]
        return self._packed(model)

    @property
    def form(self) -> str:
        """The form of quantization that the file is in, as `convert` calls it."""
        types = self.weight_types()
        if "INT4" in types:
            return "int4"
        computed = self._computed_types()
        if "INT16" in computed:
            return "int16x8"
        if computed & {"INT8", "UINT8"}:
            return "int8"
        if types & {"INT8", "UINT8"} and self.hybrid_operators():
            return "dynamic_int8"
        return "float16" if "FLOAT16" in types else "float32"

    def _computed_types(self) -> set[str]:
        """The types of numbers that are fed or computed, and represent real ones.

        What an LSTM keeps inside has 16 bits in files of 8 bits, too.
        """
        types = names_by_value(self._schema.TensorType)
        found = set()
        for graph in self._model.subgraphs:
            results = {int(index) for index in graph.inputs}
            results.update(int(i) for operator in graph.operators for i in operator.outputs)
            tensors = [graph.tensors[index] for index in results if index >= 0]
            found |= {types.get(t.type) for t in tensors if scales_of(t) and not t.isVariable}
        return found

    def weight_types(self) -> set[str]:
        """The types of the tensors whose values are stored in the file, for example {"INT8"}."""
        return {tensor.type for tensor in self.tensors() if tensor.bytes}

    def float_tensors(self) -> list[str]:
        """The names of the tensors between inputs and outputs that are in floating point."""
        graph = self._model.subgraphs[0]
        ends = {int(i) for i in (*graph.inputs, *graph.outputs)}
        return [
            tensor.name
            for index, tensor in enumerate(self.tensors())
            if tensor.is_float and tensor.is_read and index not in ends
        ]

    def tensors(self) -> Iterator[FileTensor]:
        """Every tensor of every subgraph, in the order of the file."""
        types = names_by_value(self._schema.TensorType)
        for number, graph in enumerate(self._model.subgraphs):
            read = _read_tensors(graph)
            for index, tensor in enumerate(graph.tensors):
                yield FileTensor(
                    name=text_of(tensor.name) or f"tensor {index}",
                    subgraph=number,
                    type=types.get(tensor.type, f"TYPE_{tensor.type}"),
                    shape=tuple(map(int, [] if tensor.shape is None else tensor.shape)),
                    bytes=stored_bytes(self._model.buffers[tensor.buffer]),
                    scales=scales_of(tensor),
                    is_read=index in read,
                )

    def constants_that_are_not_finite(self) -> list[str]:
        """The names of the tensors with stored numbers or scales that are NaN or infinite.

        Infinity alone, as a single number without a shape, is none of them: converters pad with it
        and compare with it.
        """
        found = []
        types = names_by_value(self._schema.TensorType)
        for graph in self._model.subgraphs:
            for index, tensor in enumerate(graph.tensors):
                type_name = types.get(tensor.type, "")
                values = real_numbers(type_name, self._model.buffers[tensor.buffer].data)
                is_single = tensor.shape is None or len(tensor.shape) == 0
                wrong = np.isnan(values) if is_single else ~np.isfinite(values)
                scales = getattr(tensor.quantization, "scale", None)
                if wrong.any() or (scales is not None and not np.isfinite(scales).all()):
                    found.append(text_of(tensor.name) or f"tensor {index}")
        return found

    def input_ranges(self) -> list[tuple[float, float] | None]:
        """For each input of the model the real numbers that it distinguishes: from, to.

        None where floats are used as they are, or where integers are no numbers but words.
        """
        graph = self._model.subgraphs[0]
        return [self._range(self._first_quantized(graph, index)) for index in graph.inputs]

    def output_steps(self) -> list[float]:
        """For each output of the model how far apart two numbers are that it distinguishes.

        0.0 where floats are computed to the end.
        """
        graph = self._model.subgraphs[0]
        return [self._step(self._last_quantized(graph, index)) for index in graph.outputs]

    def output_activations(self) -> list[str]:
        """For each output of the model the activation that it ends in, as the schema names it.

        "NONE" where that is none, and where it is something else.
        """
        graph = self._model.subgraphs[0]
        return [self._activation(graph, int(index)) for index in graph.outputs]

    def _activation(self, graph: Any, index: int) -> str:
        # Each is looked up once: in a damaged file operators can feed one another.
        makers = {int(i): pair for pair in self._operators(graph) for i in pair[1].outputs}
        while index in makers:
            name, operator = makers.pop(index)
            if name in _ACTIVATIONS:
                return name
            if name not in _WITHOUT_CHANGE or not len(operator.inputs):
                fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
                return names_by_value(self._schema.ActivationFunctionType).get(fused, "NONE")
            index = int(operator.inputs[0])
        return "NONE"

    @property
    def schema_version(self) -> int:
        """The version of the format."""
        return int(self._model.version)

    @property
    def subgraph_names(self) -> list[str]:
        """The names of the graphs: the first is the model, others are bodies of its loops."""
        return [text_of(graph.name) for graph in self._model.subgraphs]

    @property
    def metadata_names(self) -> list[str]:
        """Under which names something is kept in the file, for example "TFLITE_METADATA"."""
        return [text_of(entry.name) for entry in self._model.metadata or []]

    def changed(self, *changes: Callable[[Any], bool]) -> FlatBufferModel:
        """The file after changes of its `ModelT`; this object itself if there are none.

        Args:
            changes: functions that change a `ModelT` and return whether they did. The object is
                not to be used any more if one of them did.
        """
        done = [change(self._model) for change in changes]
        return FlatBufferModel(self._packed(self._model)) if any(done) else self

    def aligned(self) -> bytes:
        """The file with every weight at a multiple of 16 bytes from its start."""
        return self._packed(self._model)

    def without_names(self, *, keep_ends: bool = False) -> bytes:
        """The file, aligned, without the names of tensors and graphs and its description.

        They are a sixth of a small file, and no runtime reads them. Those of inputs and outputs
        stay in the signature.

        Args:
            keep_ends: whether the tensors of inputs and outputs keep their names, too, which tools
                show that do not look into the signature.
        """
        model = copy.copy(self._model)
        model.description = None
        model.subgraphs = [_without_names(graph) for graph in model.subgraphs]
        if keep_ends:
            graph, named = model.subgraphs[0], self._model.subgraphs[0]
            for index in {*map(int, graph.inputs), *map(int, graph.outputs)}:
                graph.tensors[index].name = named.tensors[index].name
        return self._packed(model)

    def metadata(self, name: str) -> bytes | None:
        """What the file keeps under a name, for example "TFLITE_METADATA"; None if nothing."""
        buffers = self._model.buffers or []
        for entry in self._metadata_entries(name):
            if entry.buffer < len(buffers) and buffers[entry.buffer].data is not None:
                return np.asarray(buffers[entry.buffer].data, np.uint8).tobytes()
        return None

    def with_metadata(self, name: str, content: bytes) -> bytes:
        """The file, aligned, with the content under a name in place of what was there.

        What follows the model, such as an archive, is left out.
        """
        replaced = self._metadata_entries(name)
        model = copy.copy(self._model)
        model.metadata = [entry for entry in model.metadata or [] if entry not in replaced]
        # A damaged entry may point to weights.
        needed = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
        needed |= {entry.buffer for entry in model.metadata}
        emptied = {entry.buffer for entry in replaced} - needed
        model.buffers = [
            self._schema.BufferT() if index in emptied else buffer
            for index, buffer in enumerate(model.buffers)
        ]
        model.metadata.append(self._schema.MetadataT(name, len(model.buffers)))
        model.buffers.append(self._schema.BufferT(np.frombuffer(content, np.uint8)))
        return self._packed(model)

    def _metadata_entries(self, name: str) -> list[Any]:
        return [entry for entry in self._model.metadata or [] if entry.name == name.encode()]

    def _packed(self, model: Any) -> bytes:
        return packed(model, len(self.content))

    def _operators(self, graph: Any) -> Iterator[tuple[str, Any]]:
        for operator in graph.operators or []:
            yield self._operator_names[operator.opcodeIndex], operator

    @cached_property
    def _operator_names(self) -> list[str]:
        return [operator_name(code) for code in self._model.operatorCodes or []]

    def _is_quantized(self, tensor: Any) -> bool:
        """Whether it is stored in the file, as integers that represent real numbers."""
        return self._model.buffers[tensor.buffer].data is not None and scales_of(tensor) > 0

    def _float_tensors(self, graph: Any) -> set[int]:
        """Indices of the floating-point tensors that something reads.

        The converter may leave an output that nothing reads in floating point.
        """
        floats = {getattr(self._schema.TensorType, name) for name in FLOATS}
        return {i for i in _read_tensors(graph) if graph.tensors[i].type in floats}

    def _first_quantized(self, graph: Any, index: int) -> Any:
        """The tensor itself, or what QUANTIZE makes of it if nothing else reads it."""
        readers = [reader for reader in self._operators(graph) if index in reader[1].inputs]
        if len(readers) == 1 and readers[0][0] == "QUANTIZE" and len(readers[0][1].outputs):
            return graph.tensors[readers[0][1].outputs[0]]
        return graph.tensors[index]

    def _last_quantized(self, graph: Any, index: int) -> Any:
        """The tensor itself, or what DEQUANTIZE makes it of."""
        for name, operator in self._operators(graph):
            if name == "DEQUANTIZE" and index in operator.outputs and len(operator.inputs):
                return graph.tensors[operator.inputs[0]]
        return graph.tensors[index]

    @staticmethod
    def _step(tensor: Any) -> float:
        scales = getattr(tensor.quantization, "scale", None)
        return 0.0 if scales is None or len(scales) == 0 else float(max(scales))

    def _range(self, tensor: Any) -> tuple[float, float] | None:
        limits = {
            self._schema.TensorType.INT8: (-128, 127),
            self._schema.TensorType.INT16: (-32768, 32767),
            self._schema.TensorType.UINT8: (0, 255),
        }
        quantization = tensor.quantization
        if tensor.type not in limits or not scales_of(tensor):
            return None
        zero_points = quantization.zeroPoint
        scale = float(quantization.scale[0])
        zero_point = 0 if zero_points is None or not len(zero_points) else int(zero_points[0])
        low, high = limits[tensor.type]
        return scale * (low - zero_point), scale * (high - zero_point)


def _read_tensors(graph: Any) -> set[int]:
    """Indices of the tensors that an operator reads or the graph returns."""
    read = {int(i) for operator in graph.operators or [] for i in operator.inputs}
    read.update(int(i) for i in graph.outputs)
    return {i for i in read if i >= 0}


def _without_names(graph: Any) -> Any:
    graph = copy.copy(graph)
    graph.name = None
    graph.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    for tensor in graph.tensors:
        tensor.name = None
    return graph
