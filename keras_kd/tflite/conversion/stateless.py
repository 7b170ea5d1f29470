"""LSTMs that begin each call with zeros, not with what the call before left in them.

A fused LSTM keeps its states in variable tensors, and nothing sets them back: apps for phones and
browsers have no call for it. Here an operator in front of it does.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_kd.tflite.contents.flatbuffer import operator_code
from keras_kd.tflite.contents.state import kept_tensors

_TYPES = {"FLOAT32": np.float32, "INT8": np.int8, "INT16": np.int16}


def reset_states(model: Any) -> bool:
    """Put an operator in front that sets each tensor back that is kept between calls.

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
