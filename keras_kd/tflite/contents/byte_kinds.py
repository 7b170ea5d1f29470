"""The bytes of a .tflite file by kind, each counted once."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.contents.archive import DAMAGE
from keras_kd.tflite.contents.tables import TableReader

IDENTIFIER = b"TFL3"
KINDS = ("weights", "quantization", "names", "metadata", "overhead")

# A file may refer to one part several times, and unpacking copies the part as often. What
# converters write refers to few parts twice, if to any.
_MOST_REPEATED = 4
_ALWAYS_ALLOWED_BYTES = 1 << 20
_BYTES_OF_TABLE = 8


def bytes_by_kind(content: bytes) -> dict[str, int]:
    """How many bytes of a file are what, by kind; together they are the size of the file.

    | kind | what it counts |
    |---|---|
    | "weights" | the values of constant tensors |
    | "quantization" | scales, zero points and ranges |
    | "names" | of tensors, subgraphs, signatures and custom operators |
    | "metadata" | what was added about the model, files behind it included |
    | "overhead" | the rest: the graph, its tables and offsets, and padding |

    Args:
        content: the bytes of a .tflite file.

    Raises:
        ValueError: if they are damaged.
    """
    kinds = _Kinds(content)
    try:
        kinds.read_model()
        kinds.read_attached_files()
    except DAMAGE as error:
        raise problem(
            f"{len(content)} bytes that do not follow the schema of TFLite ({error})",
            "an undamaged .tflite model",
            "convert the student again, or copy the file again",
        ) from error
    return kinds.counts()


def check_references(content: bytes) -> None:
    """Refuse a file that would take far more memory than its bytes when it is unpacked.

    Args:
        content: the bytes of a .tflite file.

    Raises:
        ValueError: if it refers to the same parts again and again, or is damaged.
    """
    _Kinds(content).read_model()


class _Kinds:
    """Walks through a file and notes of what kind each byte is.

    The numbers of the fields are those of the TFLite schema; a published one never changes.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._kinds = np.full(len(content), KINDS.index("overhead"), np.uint8)
        self._left = _MOST_REPEATED * len(content) + _ALWAYS_ALLOWED_BYTES

    def counts(self) -> dict[str, int]:
        counts = np.bincount(self._kinds, minlength=len(KINDS))
        return {kind: int(count) for kind, count in zip(KINDS, counts, strict=True)}

    def read_model(self) -> None:
        model = TableReader.root(self._content, IDENTIFIER, ValueError)
        for operator_code in self._tables(model, 1):
            self._mark_string(operator_code, 1)
        for subgraph in self._tables(model, 2):
            self._read_subgraph(subgraph)
        self._mark_string(model, 3)
        described = set()
        for metadata in self._tables(model, 6):
            self._mark_string(metadata, 0, "metadata")
            described.add(metadata.number(1, "<I"))
        for index, buffer in enumerate(self._tables(model, 4)):
            self._read_buffer(buffer, "metadata" if index in described else "weights")
        for field in (8, 9):
            for _ in self._tables(model, field):
                pass
        for signature in self._tables(model, 7):
            self._mark_string(signature, 2)
            for field in (0, 1):
                for entry in self._tables(signature, field):
                    self._mark_string(entry, 0)

    def _read_subgraph(self, subgraph: TableReader) -> None:
        self._mark_string(subgraph, 4)
        for _ in self._tables(subgraph, 3):
            pass
        for tensor in self._tables(subgraph, 0):
            self._mark_string(tensor, 3)
            quantization = tensor.table(4)
            if quantization is not None:
                self._read_quantization(quantization)
            sparsity = tensor.table(6)
            of_sparsity = () if sparsity is None else self._tables(sparsity, 2)
            for _ in (*of_sparsity, *self._tables(tensor, 9)):
                pass

    def _read_quantization(self, record: TableReader) -> None:
        self._mark(record.position, record.size, "quantization")
        for field, item_size in ((0, 4), (1, 4), (2, 4), (3, 8)):
            self._mark_vector(record, field, item_size, "quantization")

    def _read_buffer(self, buffer: TableReader, kind: str) -> None:
        start, items = buffer.vector(0, item_size=1)
        self._mark(start, items, kind)
        # The values of models above 2 GB lie behind the tables.
        self._mark(buffer.number(1, "<Q"), buffer.number(2, "<Q"), kind)

    def read_attached_files(self) -> None:
        """Files such as class names are an archive behind the model."""
        file = io.BytesIO(self._content)
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                start = min((member.header_offset for member in archive.infolist()), default=None)
            if start is not None:
                self._mark(start, len(self._content) - start, "metadata")

    def _mark_string(self, table: TableReader, field: int, kind: str = "names") -> None:
        # A zero ends a string and is not counted in its length.
        self._mark_vector(table, field, 1, kind, end=1)

    def _mark_vector(
        self, table: TableReader, field: int, item_size: int, kind: str, end: int = 0
    ) -> None:
        """Note the items of a vector and the number of them, which stands in front."""
        start, items = table.vector(field, item_size)
        if start:
            self._mark(start - 4, 4 + items * item_size + end, kind)

    def _tables(self, table: TableReader, field: int) -> Iterator[TableReader]:
        for found in table.tables(field):
            self._spend(_BYTES_OF_TABLE)
            yield found

    def _spend(self, size: int) -> None:
        self._left -= min(size, len(self._content))
        if self._left < 0:
            raise ValueError("it refers to the same parts again and again")

    def _mark(self, start: int, size: int, kind: str) -> None:
        self._spend(size)
        self._kinds[start : start + size] = KINDS.index(kind)
