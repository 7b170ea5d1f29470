"""How much memory LiteRT takes for a model, measured in a process with nothing else in it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_kd._checks import problem
from keras_kd._worker import Worker, WorkerError
from keras_kd.tflite.contents.byte_kinds import IDENTIFIER
from keras_kd.tflite.runtimes.litert import MODULE

_MOST_SECONDS = 600


@dataclass(frozen=True)
class Memory:
    """The memory that a model takes in LiteRT, on one thread.

    Attributes:
        peak_bytes: the most that the process ever held, Python, NumPy and LiteRT included.
        model_bytes: the part of it that comes with the model: the file, its weights as the kernels
            want them, its activations, and the code of its kernels. The rest is there for the
            smallest model too.
    """

    peak_bytes: int
    model_bytes: int


def measure_memory(content: bytes, inputs: Sequence[np.ndarray], kernels: str) -> Memory:
    """Run one example in a fresh process and read the most memory that it held.

    Args:
        content: the bytes of a file that LiteRT has run before.
        inputs: stored values for each input, in the order of the file.
        kernels: one of `TFLiteModel.predict`'s.

    Raises:
        ValueError: if the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="keras_kd_") as directory:
        path = Path(directory) / "model.tflite"
        path.write_bytes(content)
        with Worker(MODULE) as worker:
            try:
                before, after = worker.call(
                    "peaks", smallest_model(), str(path), inputs, kernels, seconds=_MOST_SECONDS
                )
            except (WorkerError, ValueError) as error:
                raise _failure(str(error)) from error
    return Memory(peak_bytes=after, model_bytes=after - before)


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
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _failure(reason: str) -> Exception:
    return problem(
        f"a model whose memory cannot be measured ({reason})",
        "a process that runs the model in LiteRT",
        "see that there is memory left for a second process",
    )
