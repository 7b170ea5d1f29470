"""Tables of embeddings in the form that ai-edge-quantizer has weights for.

The converter makes GATHER of an Embedding; the quantizer takes only its activations. It has
EMBEDDING_LOOKUP, which does the same for a list of words.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from keras_kd.tflite.contents.packing import operator_code, operator_name, packed, unpacked


def with_lookups(content: bytes, outputs: Collection[str]) -> bytes:
    """The file in which EMBEDDING_LOOKUP reads tables instead of GATHER.

    Args:
        content: a float32 file.
        outputs: the names of the tensors that GATHER computes, where it is to be replaced.

    Returns:
        A file that computes the same; the very content where there is nothing to replace.
    """
    model = unpacked(content)
    replaced = [_replace(model, graph, outputs) for graph in model.subgraphs]
    return packed(model, len(content)) if any(replaced) else content


def _replace(model: Any, graph: Any, outputs: Collection[str]) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    operators = []
    for operator in graph.operators or []:
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        result = graph.tensors[int(operator.outputs[0])]
        is_meant = name == "GATHER" and (result.name or b"").decode() in outputs
        if not is_meant or not _is_lookup(model, graph, operator):
            operators.append(operator)
            continue
        table, words = map(int, operator.inputs[:2])
        count = -1 if _is_open(result) else int(np.prod(graph.tensors[words].shape))
        width = int(graph.tensors[table].shape[1])
        listed = _added(graph, words, result, b"/words", [count])
        found = _added(graph, int(operator.outputs[0]), result, b"/lookup", [count, width])
        open_shape = getattr(result, "shapeSignature", None)
        shape = result.shape if open_shape is None else open_shape
        operators += [
            reshape(model, graph, words, listed, [count]),
            schema.OperatorT(
                opcodeIndex=operator_code(model, "EMBEDDING_LOOKUP"),
                inputs=[listed, table],
                outputs=[found],
            ),
            reshape(model, graph, found, int(operator.outputs[0]), list(map(int, shape))),
        ]
    is_changed = len(operators) > len(graph.operators or [])
    graph.operators = operators
    return is_changed


def _is_lookup(model: Any, graph: Any, operator: Any) -> bool:
    """Whether it reads rows of a stored table, in a result with one open size at most."""
    from ai_edge_litert import schema_py_generated as schema

    table, words = (graph.tensors[int(index)] for index in operator.inputs[:2])
    options = operator.builtinOptions
    signature = getattr(graph.tensors[int(operator.outputs[0])], "shapeSignature", None)
    return (
        model.buffers[table.buffer].data is not None
        and table.type == schema.TensorType.FLOAT32
        and words.type == schema.TensorType.INT32
        and len(table.shape) == 2
        and (options is None or (options.axis == 0 and options.batchDims == 0))
        and (signature is None or sum(size < 0 for size in signature) <= 1)
    )


def _is_open(tensor: Any) -> bool:
    signature = getattr(tensor, "shapeSignature", None)
    return signature is not None and any(size < 0 for size in signature)


def _added(graph: Any, like: int, named: Any, suffix: bytes, shape: list[int]) -> int:
    """The index of a new tensor of the type of another one."""
    from ai_edge_litert import schema_py_generated as schema

    graph.tensors.append(
        schema.TensorT(
            shape=[abs(size) for size in shape],
            shapeSignature=shape if min(shape) < 0 else None,
            type=graph.tensors[like].type,
            name=(named.name or b"") + suffix,
        )
    )
    return len(graph.tensors) - 1


def reshape(model: Any, graph: Any, read: int, written: int, shape: list[int]) -> Any:
    """The operator that gives a tensor the form of another; see `ReshapeOptions`."""
    from ai_edge_litert import schema_py_generated as schema

    data = np.frombuffer(np.asarray(shape, "<i4").tobytes(), np.uint8)
    model.buffers.append(schema.BufferT(data))
    graph.tensors.append(
        schema.TensorT(
            shape=[len(shape)],
            type=schema.TensorType.INT32,
            buffer=len(model.buffers) - 1,
            name=(graph.tensors[written].name or b"") + b"/shape",
        )
    )
    return schema.OperatorT(
        opcodeIndex=operator_code(model, "RESHAPE"),
        inputs=[read, len(graph.tensors) - 1],
        outputs=[written],
        builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
        builtinOptions=schema.ReshapeOptionsT(newShape=shape),
    )
