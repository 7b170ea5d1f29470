"""Batch normalization behind a transposed convolution of a quantization-aware student.

TensorFlow's converter folds a normalization into kernels that are real numbers. Those of a
quantization-aware student are rounded, which it overcomes for other convolutions: here MUL and ADD
stay. The product of a kernel with one scale and a factor for each channel is a kernel of the same
integers with a scale for each channel: nothing is rounded anew.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_kd.tflite.contents.packing import operator_name

# The smallest scale as a share of the largest: sums have 32 bits, in which an offset must fit
# beside a factor of 0. What is rounded more for it is far below a step of the output.
_SMALLEST_SHARE = 2.0**-12


def fold_normalizations(model: Any) -> bool:
    """Fold MUL and ADD into a TRANSPOSE_CONV in front of them whose kernel is rounded.

    Args:
        model: the `ModelT` of a float32 file with calibrated ranges. It is changed, and computes
            the same.

    Returns:
        Whether anything was folded.
    """
    folded = [_Folder(model, graph).fold() for graph in model.subgraphs]
    return any(folded)


class _Folder:
    """Folds in a subgraph."""

    def __init__(self, model: Any, graph: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = model
        self._graph = graph
        self._operators = list(graph.operators or [])

    def fold(self) -> bool:
        """Whether anything was folded."""
        before = len(self._operators)
        for convolution in [o for o in self._operators if self._name(o) == "TRANSPOSE_CONV"]:
            self._fold_into(convolution)
        self._graph.operators = self._operators
        return len(self._operators) < before

    def _fold_into(self, convolution: Any) -> None:
        kernel = self._graph.tensors[int(convolution.inputs[1])]
        is_rounded = kernel.type == self._schema.TensorType.INT8 and self._is_stored(kernel)
        product = self._only_reader(int(convolution.outputs[0]), "MUL")
        if not is_rounded or product is None or product.builtinOptions.fusedActivationFunction:
            return
        total = self._only_reader(int(product.outputs[0]), "ADD")
        if total is None:
            return
        factors = self._other(product, int(convolution.outputs[0]))
        offsets = self._other(total, int(product.outputs[0]))
        channels = int(kernel.shape[0])
        if factors is None or offsets is None:
            return
        if not {factors.size, offsets.size} <= {1, channels}:
            return
        factors, offsets = (np.broadcast_to(a.ravel(), (channels,)) for a in (factors, offsets))
        bias = self._bias(convolution, channels) * factors + offsets
        shape, _, read, *_ = map(int, convolution.inputs)
        kernel, bias = self._scaled(kernel, factors), self._constant(bias, total)
        convolution.inputs = [shape, kernel, read, bias]
        convolution.outputs = total.outputs
        activation = total.builtinOptions.fusedActivationFunction
        convolution.builtinOptions.fusedActivationFunction = activation
        self._operators = [o for o in self._operators if o is not product and o is not total]

    def _scaled(self, kernel: Any, factors: np.ndarray) -> int:
        """The index of a kernel of the same integers with a scale for each of its filters."""
        kernel = copy.copy(kernel)
        found = kernel.quantization
        values = np.asarray(self._model.buffers[kernel.buffer].data, np.uint8).view(np.int8)
        shared = np.maximum(np.abs(factors), _SMALLEST_SHARE * np.abs(factors).max())
        shared = np.where(shared > 0, shared, 1.0)
        scaled = values.reshape(len(factors), -1) * (factors / shared)[:, None]
        kernel.buffer = self._buffer(np.round(scaled).astype(np.int8))
        scales = np.asarray(found.scale, np.float64) * shared
        kernel.quantization = self._schema.QuantizationParametersT(
            scale=scales.astype(np.float32).tolist(),
            zeroPoint=[0] * len(factors),
            quantizedDimension=0,
        )
        self._graph.tensors.append(kernel)
        return len(self._graph.tensors) - 1

    def _bias(self, convolution: Any, channels: int) -> np.ndarray:
        inputs = [int(index) for index in convolution.inputs]
        values = self._values(inputs[3]) if len(inputs) > 3 and inputs[3] >= 0 else None
        return np.zeros(channels) if values is None else values.ravel()

    def _constant(self, values: np.ndarray, like: Any) -> int:
        """The index of a new tensor that holds these real numbers."""
        name = (self._graph.tensors[int(like.outputs[0])].name or b"") + b"/bias"
        self._graph.tensors.append(
            self._schema.TensorT(
                shape=list(values.shape),
                type=self._schema.TensorType.FLOAT32,
                buffer=self._buffer(values.astype("<f4")),
                name=name,
            )
        )
        return len(self._graph.tensors) - 1

    def _buffer(self, values: np.ndarray) -> int:
        data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(self._schema.BufferT(data))
        return len(self._model.buffers) - 1

    def _other(self, operator: Any, index: int) -> np.ndarray | None:
        """The constant that an operator with two operands reads beside a tensor."""
        [other] = [int(i) for i in operator.inputs if int(i) != index] or [index]
        return self._values(other)

    def _values(self, index: int) -> np.ndarray | None:
        tensor = self._graph.tensors[index]
        if not self._is_stored(tensor) or tensor.type != self._schema.TensorType.FLOAT32:
            return None
        data = self._model.buffers[tensor.buffer].data
        return np.asarray(data, np.uint8).view("<f4").astype(np.float64)

    def _is_stored(self, tensor: Any) -> bool:
        return self._model.buffers[tensor.buffer].data is not None

    def _only_reader(self, index: int, name: str) -> Any:
        """The operator of this name that alone reads a tensor; None if there is none."""
        readers = [o for o in self._operators if index in map(int, o.inputs)]
        is_output = index in map(int, self._graph.outputs)
        return readers[0] if [self._name(o) for o in readers] == [name] and not is_output else None

    def _name(self, operator: Any) -> str:
        return operator_name(self._model.operatorCodes[operator.opcodeIndex])
