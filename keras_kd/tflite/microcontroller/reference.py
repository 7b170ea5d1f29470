"""A model for LiteRT's reference kernels that rounds as TensorFlow Lite Micro (TFLM) does.

LiteRT has three sets of kernels, and each rounds in its own way where 32-bit sums become 8-bit
values. TFLM rounds twice, halves away from zero (gemmlowp's arithmetic). LiteRT's reference kernels
do the same, all but one: their FULLY_CONNECTED multiplies in floating point and rounds once
(https://github.com/tensorflow/tensorflow/issues/119412). A FULLY_CONNECTED is a CONV_2D with
kernels of one pixel, whose reference kernel rounds as TFLM; so that is used in its place.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_kd.tflite.contents.byte_kinds import IDENTIFIER
from keras_kd.tflite.contents.packing import operator_name, packed, unpacked

_CONVOLUTION_VERSION = 5
# The latest versions in which LiteRT 2.3 lists reference kernels, where its others go further.
_LATEST = {
    "ABS": 3,
    "ARG_MAX": 2,
    "ARG_MIN": 2,
    "COS": 1,
    "DEPTH_TO_SPACE": 1,
    "SIN": 1,
    "SQUEEZE": 1,
    "STRIDED_SLICE": 4,
}


def with_dense_as_convolution(content: bytes) -> bytes:
    """The model with a CONV_2D in place of each FULLY_CONNECTED that computes in integers.

    Args:
        content: the bytes of a .tflite file that LiteRT has loaded before.

    Returns:
        The bytes of a file that computes the same; `content` itself if nothing is to be replaced.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    rewriter = _Rewriter(schema, model)
    if not rewriter.replace_all():
        return content
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def with_reference_versions(content: bytes) -> bytes:
    """The model with operators of the latest versions in which LiteRT lists reference kernels.

    The list was not kept up: the kernel of DEPTH_TO_SPACE, for example, computes in int8, which is
    version 2, and is listed in version 1. Where a kernel lacks what a later version requires, it
    refuses the model when it is loaded.
    """
    model = unpacked(content)
    changed = False
    for code in model.operatorCodes:
        latest = _LATEST.get(operator_name(code), code.version)
        changed |= code.version > latest
        code.version = min(code.version, latest)
    return packed(model, len(content)) if changed else content


class _Rewriter:
    """Replaces operators in an unpacked model."""

    def __init__(self, schema: Any, model: Any) -> None:
        self._schema = schema
        self._model = model

    def replace_all(self) -> bool:
        """Whether there was something to replace."""
        dense = {
            index
            for index, code in enumerate(self._model.operatorCodes)
            if max(code.builtinCode, code.deprecatedBuiltinCode)
            == self._schema.BuiltinOperator.FULLY_CONNECTED
        }
        replaced = False
        for graph in self._model.subgraphs:
            operators = []
            for operator in graph.operators or []:
                if operator.opcodeIndex in dense and self._computes_in_integers(graph, operator):
                    operators += self._as_convolution(graph, operator)
                    replaced = True
                else:
                    operators.append(operator)
            graph.operators = operators
        return replaced

    def _computes_in_integers(self, graph: Any, operator: Any) -> bool:
        types = self._schema.TensorType
        value, kernel = (graph.tensors[index] for index in operator.inputs[:2])
        # The kernels of CONV_2D are always constant.
        is_constant = self._model.buffers[kernel.buffer].data is not None
        integers = value.type in (types.INT8, types.INT16)
        return integers and kernel.type in (types.INT8, types.INT4) and is_constant

    def _as_convolution(self, graph: Any, operator: Any) -> list[Any]:
        """RESHAPE, CONV_2D, RESHAPE: positions lie along the height, features are channels."""
        schema = self._schema
        source, kernel, result = operator.inputs[0], operator.inputs[1], operator.outputs[0]
        outputs, features = (int(size) for size in graph.tensors[kernel].shape)
        positions = int(np.prod(graph.tensors[source].shape)) // features
        image = self._reshaped(graph, source, [1, positions, 1, features])
        kernels = self._reshaped(graph, kernel, [outputs, 1, 1, features])
        kernels_tensor = graph.tensors[kernels]
        kernels_tensor.buffer = graph.tensors[kernel].buffer
        bias = operator.inputs[2] if len(operator.inputs) > 2 else -1
        if bias < 0:
            bias = self._zeros(graph, graph.tensors[source], kernels_tensor)
        answer = self._reshaped(graph, result, [1, positions, 1, outputs])
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH = options.strideW = 1
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
        convolution = self._operator("CONV_2D", [image, kernels, bias], answer, options)
        return [
            self._reshape(graph, source, image),
            convolution,
            self._reshape(graph, answer, result),
        ]

    def _reshaped(self, graph: Any, index: int, shape: list[int]) -> int:
        """The index of a new tensor like another one, without its values."""
        tensor = copy.copy(graph.tensors[index])
        tensor.shape = np.array(shape, np.int32)
        tensor.shapeSignature = None
        tensor.buffer = 0
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def _zeros(self, graph: Any, value: Any, kernels: Any) -> int:
        """The index of a new bias, which CONV_2D cannot do without."""
        schema = self._schema
        is_wide = value.type == schema.TensorType.INT16
        count = int(kernels.shape[0])
        buffer = schema.BufferT()
        buffer.data = np.zeros(count * (8 if is_wide else 4), np.uint8)
        self._model.buffers.append(buffer)
        scales = np.float32(value.quantization.scale[0]) * np.asarray(kernels.quantization.scale)
        bias = schema.TensorT()
        bias.shape = np.array([count], np.int32)
        bias.type = schema.TensorType.INT64 if is_wide else schema.TensorType.INT32
        bias.buffer = len(self._model.buffers) - 1
        bias.quantization = schema.QuantizationParametersT()
        bias.quantization.scale = scales.astype(np.float32)
        bias.quantization.zeroPoint = np.zeros(len(scales), np.int64)
        graph.tensors.append(bias)
        return len(graph.tensors) - 1

    def _reshape(self, graph: Any, source: int, result: int) -> Any:
        options = self._schema.ReshapeOptionsT()
        options.newShape = np.array(graph.tensors[result].shape, np.int32)
        return self._operator("RESHAPE", [source], result, options)

    def _operator(self, name: str, inputs: list[int], output: int, options: Any) -> Any:
        schema = self._schema
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        operator.builtinOptions = options
        options_name = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options_name)
        return operator

    def _code(self, name: str) -> int:
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self._schema.BuiltinOperator, name)
        code.version = _CONVOLUTION_VERSION if name == "CONV_2D" else 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1
