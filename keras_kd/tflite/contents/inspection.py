"""The content of a file as text and data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_kd._checks import problem
from keras_kd._limits import free_bytes
from keras_kd._tables import Report, Table, shape_text
from keras_kd.tflite.contents import metadata_schema
from keras_kd.tflite.contents.byte_kinds import bytes_by_kind
from keras_kd.tflite.contents.flatbuffer import FileTensor, FlatBufferModel
from keras_kd.tflite.contents.metadata import Described, described
from keras_kd.tflite.contents.state import State, state_outputs
from keras_kd.tflite.tensors import TensorInfo

_SHOWN_TENSORS = 12
_SHOWN_LABELS = 5
_LONGEST_NAME = 44
_LONGEST_LABEL = 14
# Operators that no schema has, and where they run. Names of their makers.
_FLEX = "Flex"
_SIGNAL = "Signal"
_CUSTOM = {
    "ethos-u": "an Arm Ethos-U; compiled by Vela, for TensorFlow Lite Micro with its driver",
    "edgetpu-custom-op": "a Coral Edge TPU; compiled by edgetpu_compiler, for LiteRT, libedgetpu",
    "TFLite_Detection_PostProcess": "LiteRT, and TensorFlow Lite Micro",
    "AudioSpectrogram": "LiteRT",
    "Mfcc": "LiteRT",
    "NumericVerify": "LiteRT",
    "Convolution2DTransposeBias": "MediaPipe",
    "Landmarks2TransformMatrix": "MediaPipe",
    "MaxPoolingWithArgmax2D": "MediaPipe",
    "MaxUnpooling2D": "MediaPipe",
    "TransformLandmarks": "MediaPipe",
    "TransformTensorBilinear": "MediaPipe",
}
_OF_AN_APP = "runtimes in which the app registers it"


@dataclass(frozen=True)
class Inspection(Report):
    """The contents of a .tflite file; `to_dataframe` has a row for each tensor.

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
        custom_operators: operators that are not in the schema, and what runs them.
        described: the metadata: class names, normalization, attached files.
        minimum_runtime: the first version of TensorFlow Lite that computes what is in the file,
            for example "1.14.0": the one in the file, or a later one where that is known to compute
            something else; None where neither is known.
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
    custom_operators: dict[str, str]
    described: Described

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types, with the outputs that the states are taken from."""
        return {**super().to_dict(), "next_states": state_outputs(self.inputs, self.outputs)}

    def _records(self) -> list[dict[str, Any]]:
        return [asdict(tensor) for tensor in self.tensors]

    def _parts(self) -> list[Table | str]:
        return [
            self._ends(),
            "",
            self._kinds(),
            "",
            *self._operators(),
            "",
            *self._constants(),
        ]

    def _ends(self) -> Table:
        rows = [
            [kind, tensor.name, tensor.dtype.name, shape_text(tensor.shape), *_quantization(tensor)]
            for kind, tensors in (("input", self.inputs), ("output", self.outputs))
            for tensor in tensors
        ]
        return Table(["", "name", "type", "shape", "scale", "zero point"], rows, left=4)

    def _kinds(self) -> Table:
        rows = [
            [kind, f"{count:,}", f"{100 * count / self.size:.1f} %"]
            for kind, count in self.bytes.items()
        ]
        return Table(["bytes", f"{self.size:,}", ""], rows)

    def _operators(self) -> list[Table | str]:
        rows = [[name, str(count)] for name, count in self.operators.items()]
        inside = len(self.float_tensors)
        return [
            Table(["operator", "times"], rows),
            *(f"{name} runs on {where}" for name, where in self.custom_operators.items()),
            f"in floating point: {', '.join(self.float_operators) or 'no operator'}; "
            f"{inside or 'no'} tensor{'' if inside == 1 else 's'} between inputs and outputs",
            f"state: {self._state()}",
            f"oldest runtime: {in_words(self.minimum_runtime)}",
            f"graphs: {len(self.subgraphs)}; schema version: {self.schema_version}; "
            f"metadata: {', '.join(self.metadata) or 'none'}",
            *self._described(),
            f"SHA-256: {self.sha256}",
        ]

    def _described(self) -> list[str]:
        about = self.described
        return [
            *(
                f"class names of {_short(name)}: {len(names)} ({_listed(names)})"
                for name, names in about.class_names.items()
            ),
            *(
                f"normalization of {_short(name)}: (x - {_numbers(mean)}) / {_numbers(std)}"
                for name, (mean, std) in about.normalization.items()
            ),
            *([f"attached files: {_listed(about.files)}"] if about.files else []),
            *([f"metadata that cannot be read: {about.error}"] if about.error else []),
        ]

    def _state(self) -> str:
        pairs = state_outputs(self.inputs, self.outputs)
        fed = [f"{name} is {output} of the call before" for name, output in pairs.items()]
        return "; ".join([str(self.state)] * (bool(self.state) or not fed) + fed)

    def _constants(self) -> list[Table | str]:
        stored = [tensor for tensor in self.tensors if tensor.bytes]
        rows = [
            [_short(t.name), t.type.lower(), shape_text(t.shape), str(t.scales), f"{t.bytes:,}"]
            for t in stored[:_SHOWN_TENSORS]
        ]
        table = Table(["constant tensor", "type", "shape", "scales", "bytes"], rows, left=3)
        left_out = len(stored) - len(rows)
        return [table, f"and {left_out} smaller ones"] if left_out else [table]


def inspect(path: str | os.PathLike) -> Inspection:
    """Look into a .tflite file without loading it in a runtime.

    What LiteRT here cannot run is shown too: models compiled for an Ethos-U or an Edge TPU, with
    Flex or other custom operators, with any batch size.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or if it does not fit into the memory.
    """
    content = read_file(path)
    try:
        return inspect_file(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of a .tflite file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not fit into the memory.
    """
    path = Path(path)
    check_path(path)
    size, free = path.stat().st_size, free_bytes()
    # The file, a copy of it in the process of LiteRT, and what that makes of it.
    if size > free // 4:
        raise problem(
            f"the file {str(path)!r} of {size} bytes, with {free} bytes of memory free",
            "a .tflite file of at most a quarter of the free memory",
            "check the path, or free memory",
        )
    return path.read_bytes()


def check_path(path: Path) -> None:
    """Raise FileNotFoundError if there is no file at a path."""
    if not path.is_file():
        raise problem(
            f"the path {str(path)!r}", "a .tflite file", "check the path", kind=FileNotFoundError
        )


def inspect_file(content: bytes, flatbuffer: FlatBufferModel | None = None) -> Inspection:
    """Look into a file.

    Args:
        content: its bytes.
        flatbuffer: the same, unpacked, if that is at hand.

    Raises:
        ValueError: if the file is damaged.
    """
    flatbuffer = flatbuffer or FlatBufferModel(content)
    inputs, outputs = flatbuffer.inputs, flatbuffer.outputs
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
        custom_operators={name: _place(name) for name in flatbuffer.custom_operators()},
        described=described(
            content,
            flatbuffer.metadata(metadata_schema.ENTRY),
            [tensor.name for tensor in inputs],
            [tensor.name for tensor in outputs],
        ),
    )


def _place(custom_operator: str) -> str:
    """Where a custom operator runs."""
    if custom_operator.startswith(_FLEX):
        return "LiteRT with the Flex delegate (select TensorFlow operators)"
    if custom_operator.startswith(_SIGNAL):
        return "TensorFlow Lite Micro with its signal library"
    return _CUSTOM.get(custom_operator, _OF_AN_APP)


def _listed(texts: Sequence[str]) -> str:
    """The first few of them, short."""
    shown = [_cut(text) for text in texts[:_SHOWN_LABELS]]
    return ", ".join(
        [*shown, f"{len(texts) - len(shown)} more"] if len(texts) > len(shown) else shown
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 3]}..."


def _numbers(values: Sequence[float]) -> str:
    texts = [f"{value:.6g}" for value in values[:4]]
    return texts[0] if len(values) == 1 else f"[{', '.join(texts)}{', ...' * (len(values) > 4)}]"


def _quantization(tensor: TensorInfo) -> tuple[str, str]:
    return (f"{tensor.scale:.6g}", str(tensor.zero_point)) if tensor.is_quantized else ("", "")


def _short(name: str) -> str:
    """Names of fused operators are as long as all their parts; their end is the specific part."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


# The first version of TensorFlow Lite that gave the outputs of LiteRT 2.3. Tried were TensorFlow
# 2.12, 2.15 to 2.19, tflite-runtime 2.14, and LiteRT 1.0.0, 1.0.1 (wrong where 2.18 is) and 1.1.1
# to 2.3.
_FIRST_WITH_4_BITS = "2.14.0"
# Operators that compute in floating point with weights of integers.
_FIRST_RIGHT = {("CONV_2D", "INT4"): "2.19.0", ("FULLY_CONNECTED", "INT8"): "2.16.2"}
# LiteRT counts its versions anew.
_FIRST_LITERT = {"2.19.0": "1.1.1"}


def oldest_runtime(model: FlatBufferModel) -> str | None:
    """The first version of TensorFlow Lite that runs the file rightly, for example "2.19.0".

    A converter writes the first version that has the operators of the file. ai-edge-quantizer
    changes the types of weights afterwards and leaves that version as it was: older runtimes load
    such a file and compute something else, or crash, without an error.

    None where the file does not give it and nothing in it has been tried.
    """
    # The buffer has a fixed size, zeros behind the text.
    stored = (model.metadata("min_runtime_version") or b"").rstrip(b"\0").decode(errors="replace")
    # One scale for all of a weight is right in runtimes that have none for each channel.
    tried = {
        _FIRST_RIGHT.get((operator, weights), "")
        for operator, weights, scales in model.hybrid_weights()
        if scales > 1 or weights != "INT8"
    }
    if "INT4" in model.weight_types():
        tried.add(_FIRST_WITH_4_BITS)
    return max((stored, *tried), key=_version_parts) or None


def in_words(version: str | None) -> str:
    """The version as it is shown."""
    if version is None:
        return "unknown"
    litert = _FIRST_LITERT.get(version)
    return f"TensorFlow Lite {version}" + (f" or LiteRT {litert}" if litert else "")


def _version_parts(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    is_version = all(part.isdecimal() and len(part) < 9 for part in parts)
    return tuple(map(int, parts)) if is_version else ()
