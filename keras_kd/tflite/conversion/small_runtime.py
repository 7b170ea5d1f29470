"""Operators that TensorFlow Lite Micro (TFLM) lacks, written as others that it has.

RepeatVector, `tile` and `repeat` become TILE, which it lacks, and its CONCATENATION takes
ten inputs at most. Both are chains of CONCATENATIONs, which copy numbers and round nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd.tflite.contents.flatbuffer import operator_code, operator_name, packed, unpacked

# The inputs that TFLM's CONCATENATION takes.
_MOST_INPUTS = 10


def rewritten(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file without TILE and with no more than ten inputs for a CONCATENATION.

    Args:
        content: the bytes of a file that the converter has made.

    Returns:
        The bytes of a file that computes the same, and the names of the operators that were
        replaced in it; `content` itself if there were none.
    """
    model = unpacked(content)
    rewriter = _Rewriter(model)
    for graph in model.subgraphs:
        rewriter.rewrite(graph)
    if not rewriter.replaced:
        return content, ()
    _drop_unused_codes(model)
    return packed(model, len(content)), tuple(sorted(rewriter.replaced))


def _drop_unused_codes(model: Any) -> None:
    """Runtimes look for the kernel of each operator that is listed, also of those that none is."""
    operators = [operator for graph in model.subgraphs for operator in graph.operators or []]
    used = sorted({operator.opcodeIndex for operator in operators})
    numbers = {index: number for number, index in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for operator in operators:
        operator.opcodeIndex = numbers[operator.opcodeIndex]


class _Rewriter:
    """Replaces operators in an unpacked model; `replaced` has the names of those that it found."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names = [operator_name(code) for code in model.operatorCodes]
        self.replaced: set[str] = set()

    def rewrite(self, graph: Any) -> None:
        """Replace what TFLM lacks in one graph."""
        operators: list[Any] = []
        for operator in graph.operators or []:
            name = self._names[operator.opcodeIndex]
            chain = None
            if name == "TILE":
                chain = self._tiled(graph, operator)
            elif name == "CONCATENATION" and len(operator.inputs) > _MOST_INPUTS:
                axis, inputs = operator.builtinOptions.axis, list(map(int, operator.inputs))
                chain = self._joined(graph, inputs, axis, int(operator.outputs[0]))
            if chain is not None:
                self.replaced.add(name)
            operators += [operator] if chain is None else chain
        graph.operators = operators

    def _tiled(self, graph: Any, operator: Any) -> list[Any] | None:
        """Along one axis after the other; None where it is not known how often."""
        source, multiples, result = (int(i) for i in (*operator.inputs, operator.outputs[0]))
        times = self._integers(graph.tensors[multiples])
        if times is None or not (times > 1).any() or (times < 1).any():
            return None
        axes = [axis for axis, count in enumerate(times) if count > 1]
        chain: list[Any] = []
        for axis in axes:
            inputs = [source] * int(times[axis])
            output = result if axis == axes[-1] else self._joined_tensor(graph, inputs, axis)
            chain += self._joined(graph, inputs, axis, output)
            source = output
        return chain

    def _joined(self, graph: Any, inputs: Sequence[int], axis: int, output: int) -> list[Any]:
        """The operators that put tensors one after the other into `output`."""
        chain: list[Any] = []
        parts = list(inputs)
        while len(parts) > _MOST_INPUTS:
            groups = [parts[i : i + _MOST_INPUTS] for i in range(0, len(parts), _MOST_INPUTS)]
            made: dict[tuple[int, ...], int] = {}
            parts = []
            for group in groups:
                if len(group) == 1:
                    parts += group
                    continue
                if tuple(group) not in made:
                    # The same tensors side by side need not be copied again.
                    made[tuple(group)] = self._joined_tensor(graph, group, axis)
                    chain.append(self._concatenation(group, axis, made[tuple(group)]))
                parts.append(made[tuple(group)])
        return [*chain, self._concatenation(parts, axis, output)]

    def _joined_tensor(self, graph: Any, inputs: Sequence[int], axis: int) -> int:
        """The index of a new tensor for some that are put one after the other."""
        tensor = copy.copy(graph.tensors[inputs[0]])
        shape = np.array(tensor.shape, np.int32)
        shape[axis] = sum(int(graph.tensors[index].shape[axis]) for index in inputs)
        tensor.shape, tensor.shapeSignature = shape, None
        # Its values are computed, also where those of the first one are stored.
        tensor.buffer = 0
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def _concatenation(self, inputs: Sequence[int], axis: int, output: int) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        return schema.OperatorT(
            opcodeIndex=operator_code(self._model, "CONCATENATION"),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
            builtinOptionsType=schema.BuiltinOptions.ConcatenationOptions,
            builtinOptions=schema.ConcatenationOptionsT(axis=axis),
        )

    def _integers(self, tensor: Any) -> np.ndarray | None:
        """The stored values of a tensor of integers; None where they are computed."""
        from ai_edge_litert import schema_py_generated as schema

        stored = self._model.buffers[tensor.buffer].data
        if stored is None:
            return None
        width = 8 if tensor.type == schema.TensorType.INT64 else 4
        return np.frombuffer(np.asarray(stored, np.uint8).tobytes(), f"<i{width}")
