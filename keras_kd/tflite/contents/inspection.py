"""What is in a file, for people and for programs."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from keras_kd._json import json_value
from keras_kd._tables import aligned
from keras_kd.tflite.contents.byte_kinds import bytes_by_kind
from keras_kd.tflite.contents.flatbuffer import FileTensor, FlatBufferModel
from keras_kd.tflite.contents.oldest_runtime import in_words, oldest_runtime
from keras_kd.tflite.contents.state import State, state_outputs
from keras_kd.tflite.tensors import TensorInfo

_SHOWN_TENSORS = 12
_LONGEST_NAME = 44


@dataclass(frozen=True)
class Inspection:
    """What is in a .tflite file. `print` shows it, `to_json` has all of it.

    Attributes:
        size: the size of the file in bytes.
        bytes: how many of them are "weights", "quantization", "names", "metadata" and "overhead",
            which is the rest; together they are `size`. See
            `keras_kd.tflite.contents.byte_kinds.bytes_by_kind`.
        operators: how often each operator occurs.
        float_operators: the operators that compute in floating point.
        float_tensors: the tensors between inputs and outputs that are in floating point.
        inputs: the inputs, in the order of the file.
        outputs: the outputs, likewise.
        tensors: every tensor, those with the most bytes first.
        state: what the file keeps from one call to the next.
        subgraphs: the names of the graphs: the first is the model, others are bodies of loops.
        metadata: under which names something is kept in the file.
        schema_version: the version of the format.
        minimum_runtime: the first version of TensorFlow Lite that computes what is in the file,
            for example "1.14.0": what the file says, or a later one where that is known to compute
            something else; None where nothing says.
        sha256: the SHA-256 of the file: whether a copy is undamaged.
    """

    size: int
    bytes: dict[str, int]
    operators: dict[str, int]
    float_operators: tuple[str, ...]
    float_tensors: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    tensors: tuple[FileTensor, ...]
    state: State
    subgraphs: tuple[str, ...]
    metadata: tuple[str, ...]
    schema_version: int
    minimum_runtime: str | None
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """All of it, in types that JSON knows."""
        ends = {
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
        }
        return json_value({**asdict(self), **ends})

    def __str__(self) -> str:
        return "\n\n".join([self._ends(), self._kinds(), self._operators(), self._tensors()])

    def _ends(self) -> str:
        rows = [
            [kind, tensor.name, tensor.dtype.name, _sizes(tensor.shape), *_quantization(tensor)]
            for kind, tensors in (("input", self.inputs), ("output", self.outputs))
            for tensor in tensors
        ]
        return aligned(["", "name", "type", "shape", "scale", "zero point"], rows, left=4)

    def _kinds(self) -> str:
        rows = [
            [kind, f"{count:,}", f"{100 * count / self.size:.1f} %"]
            for kind, count in self.bytes.items()
        ]
        return aligned(["bytes", f"{self.size:,}", ""], rows)

    def _operators(self) -> str:
        rows = [[name, str(count)] for name, count in self.operators.items()]
        inside = len(self.float_tensors)
        lines = [
            aligned(["operator", "times"], rows),
            f"in floating point: {', '.join(self.float_operators) or 'no operator'}; "
            f"{inside or 'no'} tensor{'' if inside == 1 else 's'} between inputs and outputs",
            f"state: {self._state()}",
            f"oldest runtime: {in_words(self.minimum_runtime)}",
            f"graphs: {len(self.subgraphs)}; schema version: {self.schema_version}; "
            f"metadata: {', '.join(self.metadata) or 'none'}",
            f"SHA-256: {self.sha256}",
        ]
        return "\n".join(lines)

    def _state(self) -> str:
        pairs = state_outputs(self.inputs, self.outputs)
        fed = [f"{name} is {output} of the call before" for name, output in pairs.items()]
        return "; ".join([str(self.state)] * (bool(self.state) or not fed) + fed)

    def _tensors(self) -> str:
        stored = [tensor for tensor in self.tensors if tensor.bytes]
        rows = [
            [_short(t.name), t.type.lower(), _sizes(t.shape), str(t.scales), f"{t.bytes:,}"]
            for t in stored[:_SHOWN_TENSORS]
        ]
        table = aligned(["constant tensor", "type", "shape", "scales", "bytes"], rows, left=3)
        left_out = len(stored) - len(rows)
        return f"{table}\nand {left_out} smaller ones" if left_out else table


def inspect_file(
    content: bytes,
    flatbuffer: FlatBufferModel,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
) -> Inspection:
    """Look into a file.

    Args:
        content: its bytes.
        flatbuffer: the same, unpacked.
        inputs: its inputs as LiteRT knows them.
        outputs: its outputs, likewise.

    Raises:
        ValueError: if the file is damaged.
    """
    return Inspection(
        size=len(content),
        bytes=bytes_by_kind(content),
        operators=flatbuffer.operator_counts(),
        float_operators=tuple(flatbuffer.float_operators()),
        float_tensors=tuple(flatbuffer.float_tensors()),
        inputs=inputs,
        outputs=outputs,
        tensors=tuple(sorted(flatbuffer.tensors(), key=lambda t: t.bytes, reverse=True)),
        state=flatbuffer.state,
        subgraphs=tuple(flatbuffer.subgraph_names),
        metadata=tuple(flatbuffer.metadata_names),
        schema_version=flatbuffer.schema_version,
        minimum_runtime=oldest_runtime(flatbuffer),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


def _quantization(tensor: TensorInfo) -> tuple[str, str]:
    return (f"{tensor.scale:.6g}", str(tensor.zero_point)) if tensor.is_quantized else ("", "")


def _short(name: str) -> str:
    """Names of fused operators are as long as all their parts; their end says most."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
