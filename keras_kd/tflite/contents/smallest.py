"""The smallest model: what a runtime needs for it, it needs for every model."""

from __future__ import annotations

from keras_kd.tflite.contents.flatbuffer import FILE_IDENTIFIER


def smallest_model() -> bytes:
    """A .tflite file that takes one float32 and returns it if it is above 0, otherwise 0."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tensors = [schema.TensorT(), schema.TensorT()]
    for tensor, name in zip(tensors, ("x", "y"), strict=True):
        tensor.name, tensor.shape, tensor.type = name, [1], schema.TensorType.FLOAT32
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.RELU
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    # Buffer 0 is the one of tensors without stored values.
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())
