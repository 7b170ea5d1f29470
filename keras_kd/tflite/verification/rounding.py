"""What rounding to the steps of a file costs, and nothing else.

A file of integers differs from its student because numbers are rounded to steps, and because what
is beyond the ends of a range is cut off. The first is the price of the form, the second a
mistake. `rounding_twin` makes a file with the first alone: it computes in float32, with the weights
of the file, and rounds each tensor to the step that it has there.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_kd.tflite.contents.packing import operator_code, operator_name, packed, unpacked

_STORED = {"INT8": "i1", "UINT8": "u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"}
# Their results end where their range ends: 255 / 256 is the largest probability of 8 bits.
_FIXED_RANGES = ("LOGISTIC", "SOFTMAX", "LOG_SOFTMAX", "TANH", "L2_NORMALIZATION")
# The limits of FAKE_QUANT with all of its bits: 256 times as wide as 8 bits are.
_WIDE = (-(2**15), 2**15 - 1)
_NARROW = {"INT8": (-128, 127), "UINT8": (0, 255)}


def rounding_twin(content: bytes) -> bytes | None:
    """A float32 file that rounds as a file of 8-bit integers does, and cuts nothing off.

    Args:
        content: the bytes of a file that LiteRT has loaded before.

    Returns:
        The bytes of the twin; its inputs and outputs have the same names, and are real numbers.
        None where no tensor is rounded to 8 bits, where operators round as they compute (hybrid
        ones), and for loops.
    """
    model = unpacked(content)
    return packed(model, 4 * len(content)) if _Twin(model).make() else None


class _Twin:
    """Turns a model into its twin."""

    def __init__(self, model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = model
        self._graph = model.subgraphs[0]
        types = {value: name for name, value in vars(schema.TensorType).items()}
        self._types = [types[tensor.type] for tensor in self._graph.tensors]
        # What is computed and not stored, by index: its scale and its zero point.
        self._rounded: dict[int, tuple[float, int]] = {}

    def make(self) -> bool:
        """Change the model, and return whether it is a twin now."""
        for index, tensor in enumerate(self._graph.tensors):
            quantization = tensor.quantization
            if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
                continue
            if self._model.buffers[tensor.buffer].data is not None:
                self._dequantize(index)
            elif not tensor.isVariable:
                zero_points = [] if quantization.zeroPoint is None else quantization.zeroPoint
                self._rounded[index] = float(quantization.scale[0]), int(next(iter(zero_points), 0))
            tensor.type, tensor.quantization = self._schema.TensorType.FLOAT32, None
        is_rounded = any(self._types[index] in _NARROW for index in self._rounded)
        if not is_rounded or len(self._model.subgraphs) > 1:
            return False
        operators = []
        for operator in self._graph.operators:
            operators += self._rounding(operator)
        self._graph.operators = operators
        return True

    def _rounding(self, operator: Any) -> list[Any]:
        """An operator, and what rounds its results."""
        name = operator_name(self._model.operatorCodes[operator.opcodeIndex])
        read, written = list(map(int, operator.inputs)), list(map(int, operator.outputs))
        if name in ("QUANTIZE", "DEQUANTIZE"):
            # One of the two has a scale: a file of weights alone has no twin.
            rounded = written[0] if written[0] in self._rounded else read[0]
            return [self._fake_quant(read[0], written[0], rounded, _WIDE)]
        made = [operator]
        operator.intermediates = None
        operator.outputs = [
            self._raw(index) if index in self._rounded else index for index in written
        ]
        for raw, index in zip(operator.outputs, written, strict=True):
            if index in self._rounded:
                limits = _NARROW.get(self._types[index]) if name in _FIXED_RANGES else None
                made.append(self._fake_quant(raw, index, index, limits or _WIDE))
        return made

    def _raw(self, index: int) -> int:
        """The index of a new tensor for what is not rounded yet."""
        raw = copy.copy(self._graph.tensors[index])
        raw.name = f"not rounded {index}"
        self._graph.tensors.append(raw)
        return len(self._graph.tensors) - 1

    def _fake_quant(self, read: int, written: int, rounded: int, limits: tuple[int, int]) -> Any:
        scale, zero_point = self._rounded[rounded]
        if limits == _WIDE:
            # Multiples of the scale are multiples for every zero point.
            zero_point = 0
        low, high = (scale * (limit - zero_point) for limit in limits)
        return self._schema.OperatorT(
            opcodeIndex=operator_code(self._model, "FAKE_QUANT"),
            inputs=[read],
            outputs=[written],
            builtinOptionsType=self._schema.BuiltinOptions.FakeQuantOptions,
            builtinOptions=self._schema.FakeQuantOptionsT(
                min=low, max=high, numBits=16 if limits == _WIDE else 8
            ),
        )

    def _dequantize(self, index: int) -> None:
        """Store weights as the real numbers that they represent."""
        tensor = self._graph.tensors[index]
        shape = [] if tensor.shape is None else list(map(int, tensor.shape))
        stored = np.asarray(self._model.buffers[tensor.buffer].data, np.uint8)
        if self._types[index] == "INT4":
            # Two in a byte, the lower bits first.
            pairs = np.stack([stored << 4, stored & 0xF0], axis=-1).view(np.int8) >> 4
            values = pairs.ravel()[: int(np.prod(shape))]
        else:
            values = stored.view(_STORED[self._types[index]])
        along = [1] * len(shape)
        scales = np.asarray(tensor.quantization.scale, np.float64)
        zero_points = np.asarray(tensor.quantization.zeroPoint, np.float64)
        if len(scales) > 1:
            along[tensor.quantization.quantizedDimension] = -1
        real = (values.reshape(shape) - zero_points.reshape(along)) * scales.reshape(along)
        data = np.frombuffer(real.astype("<f4").tobytes(), np.uint8)
        self._model.buffers.append(self._schema.BufferT(data))
        tensor.buffer = len(self._model.buffers) - 1
