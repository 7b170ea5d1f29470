"""The content of a store as text and data."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._json import json_value
from keras_kd._tables import Report, Table
from keras_kd.teachers.stored.codecs import Codec, TopK
from keras_kd.teachers.stored.contents import Description, StoredOutput
from keras_kd.teachers.stored.database import Records


@dataclass(frozen=True)
class StoredTensor:
    """What is stored of one output or layer.

    Attributes:
        name: its name.
        shape: its shape for one example, as the teacher gave it.
        dtype: how its numbers are stored.
        top_k: how many of the largest logits are kept; `None`: all values.
        temperatures: with `top_k`, those for which the mass of the others is kept.
        activation: what made probabilities of logits, where that is known.
        bytes: how many a record takes for it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    top_k: int | None
    temperatures: tuple[float, ...] | None
    activation: str | None
    bytes: int


@dataclass(frozen=True)
class Summary(Report):
    """What a store holds. `print` shows it.

    Attributes:
        path: the store.
        teacher: the teacher's name.
        examples: how many examples can be read.
        complete: whether these are all; otherwise the storing was interrupted and can be resumed.
        versions: how many augmented versions there are of each example.
        seed: from which their seeds are made; `None` without augmentation.
        key_kind: what identifies examples: `"position"`, `"integer"` or `"string"`.
        key_name: the entry of the data that is the key, or `None`.
        has_fingerprints: whether a wrong pairing is noticed by the examples themselves.
        bytes: the size of the file.
        outputs: what is stored for each version of each example, layers among them.
    """

    path: str
    teacher: str
    examples: int
    complete: bool
    versions: int
    seed: int | None
    key_kind: str
    key_name: str | None
    has_fingerprints: bool
    bytes: int
    outputs: tuple[StoredTensor, ...]

    @property
    def bytes_per_example(self) -> float:
        """The size of the file over the number of examples, NaN without one."""
        return self.bytes / self.examples if self.examples else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {**super().to_dict(), "bytes_per_example": json_value(self.bytes_per_example)}

    def _records(self) -> list[dict[str, Any]]:
        return [asdict(tensor) for tensor in self.outputs]

    def _parts(self) -> list[Table | str]:
        ending = "complete" if self.complete else "interrupted there; storing it again resumes"
        lines = [
            f"{self.path}: outputs of the teacher {self.teacher!r} for {self.examples:,} examples, "
            f"{ending}",
            f"bytes: {self.bytes:,}, {self.bytes_per_example:.1f} for each example",
            f"examples are identified by {self._keys()}, and "
            f"{'' if self.has_fingerprints else 'not '}checked by a fingerprint",
        ]
        if self.seed is not None:
            lines.append(f"versions of each, augmented: {self.versions}, from the seed {self.seed}")
        return [*lines, "", self._table()]

    def _keys(self) -> str:
        if self.key_kind == "position":
            return "their position"
        return f"the {self.key_kind} {self.key_name!r}"

    def _table(self) -> Table:
        rows = [
            [tensor.name, f"{list(tensor.shape)}", tensor.dtype, _kept(tensor), f"{tensor.bytes:,}"]
            for tensor in self.outputs
        ]
        return Table(["stored", "shape", "type", "values", "bytes"], rows, left=4)


def summarize(path: str | os.PathLike, *, verify: bool = False) -> Summary:
    """Look into a store, complete or not.

    Args:
        path: the store.
        verify: whether to read all of it and compare the checksums.

    Raises:
        FileNotFoundError: if there is no store.
        ValueError: if it is damaged; the message names the place.
    """
    records = Records(path)
    description = Description.from_json(records.description)
    if verify:
        records.verify()
    contents = description.contents
    about = {output.codec.name: output for output in contents.stored_outputs}
    return Summary(
        path=str(path),
        teacher=description.teacher,
        examples=records.count // description.versions,
        complete=records.complete,
        versions=description.versions,
        seed=description.seed,
        key_kind=description.key_kind,
        key_name=description.key_name,
        has_fingerprints=description.has_fingerprints,
        bytes=Path(path).stat().st_size,
        outputs=tuple(_stored(codec, about.get(codec.name)) for codec in contents.codecs),
    )


def _stored(codec: Codec, output: StoredOutput | None) -> StoredTensor:
    is_top = isinstance(codec, TopK)
    return StoredTensor(
        name=codec.name,
        shape=codec.shape,
        dtype=codec.dtype,
        top_k=codec.top_k if is_top else None,
        temperatures=codec.temperatures if is_top else None,
        activation=output and output.activation,
        bytes=np.dtype(codec.fields).itemsize,
    )


def _kept(tensor: StoredTensor) -> str:
    if tensor.top_k is None:
        return "all"
    temperatures = ", ".join(f"{temperature:g}" for temperature in tensor.temperatures or ())
    return f"the {tensor.top_k} largest, and the rest at temperature {temperatures}"
