"""FlatBuffer tables: written from mappings, and read back from untrusted bytes.

A table is a mapping from slots to values. How a value is stored follows from its type, as far as
the schema of TFLite metadata needs it: members of enumerations (types of unions among them) as one
byte, other integers in 32 bits, floats in 32 bits, text in UTF-8; mappings are tables, sequences
are vectors of tables or of floats. Empty text is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from keras_kd._checks import problem

# A vtable begins with its own size and that of its table, 2 bytes each.
_VTABLE_HEADER = 4


def write_tables(root: Mapping[int, Any], identifier: bytes) -> bytes:
    """The bytes of a FlatBuffer.

    Args:
        root: its root table.
        identifier: the four letters that follow the first offset.
    """
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(_add_table(builder, root), file_identifier=identifier)
    return bytes(builder.Output())


def _add_table(builder: Any, table: Mapping[int, Any]) -> int:
    # What a table points to is written before the table.
    offsets = {
        slot: _add_value(builder, value)
        for slot, value in table.items()
        if not isinstance(value, int | float) and value != ""
    }
    builder.StartObject(max(table, default=-1) + 1)
    for slot, value in table.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        elif isinstance(value, IntEnum):
            builder.PrependUint8Slot(slot, value, 0)
        elif isinstance(value, int):
            builder.PrependUint32Slot(slot, value, 0)
        elif isinstance(value, float):
            builder.PrependFloat32Slot(slot, value, 0.0)
    return builder.EndObject()


def _add_value(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Mapping):
        return _add_table(builder, value)
    if all(isinstance(item, float) for item in value):
        return builder.CreateNumpyVector(np.asarray(value, "<f4"))
    tables = [_add_table(builder, item) for item in value]
    builder.StartVector(4, len(tables), 4)
    for offset in reversed(tables):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def damaged_metadata(clause: str) -> Exception:
    """The error for damaged metadata; `clause` describes the damage."""
    return problem(
        f"TFLite metadata {clause}",
        "undamaged TFLite metadata",
        "add the metadata again with keras_kd.tflite.android.add_metadata",
    )


class TableReader:
    """One table in a FlatBuffer. Nothing outside of the bytes is read, wherever they point.

    Args:
        content: the bytes.
        position: where the table begins.
        damaged: builds the exception for damage from a clause such as "with an offset to byte 7".
    """

    def __init__(
        self,
        content: bytes,
        position: int,
        damaged: Callable[[str], Exception] = damaged_metadata,
    ) -> None:
        self.position = position
        self._content = content
        self._damaged = damaged
        # The vtable may stand on either side of its table.
        self._vtable = position - self._number("<i", position)
        self._vtable_size = self._number("<H", self._vtable)

    @classmethod
    def root(
        cls,
        content: bytes,
        identifier: bytes,
        damaged: Callable[[str], Exception] = damaged_metadata,
    ) -> TableReader:
        """The root table.

        Args:
            content: the bytes.
            identifier: the four letters that follow the first offset.
            damaged: as for the class.

        Raises:
            ValueError: if the bytes do not begin like such a FlatBuffer.
        """
        if content[4:8] != identifier or len(content) < 8:
            raise damaged(f"without the letters {identifier.decode()!r} at their place")
        return cls(content, struct.unpack_from("<I", content)[0], damaged)

    @property
    def size(self) -> int:
        """How many bytes the fields take where the table begins."""
        return self._number("<H", self._vtable + 2)

    def number(self, slot: int, kind: str, default: float = 0) -> Any:
        """A number as `struct` unpacks it: "<B" an enumeration, "<I" an integer, "<f" a float."""
        position = self._field(slot)
        return default if position is None else self._number(kind, position)

    def text(self, slot: int) -> str:
        """Text, empty if there is none."""
        start, length = self.vector(slot, item_size=1)
        try:
            return self._content[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged("with text that is not UTF-8") from error

    def floats(self, slot: int) -> tuple[float, ...]:
        """A vector of floats."""
        start, length = self.vector(slot, item_size=4)
        return struct.unpack_from(f"<{length}f", self._content, start)

    def table(self, slot: int) -> TableReader | None:
        """A table, None if it is not there."""
        position = self._field(slot)
        return None if position is None else self._referred(position)

    def tables(self, slot: int) -> Iterator[TableReader]:
        """The tables of a vector of them, read one after the other."""
        start, length = self.vector(slot, item_size=4)
        return (self._referred(position) for position in range(start, start + 4 * length, 4))

    def vector(self, slot: int, item_size: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are; (0, 0) without one."""
        position = self._field(slot)
        if position is None:
            return 0, 0
        start = position + self._number("<I", position)
        length = self._number("<I", start)
        if start + 4 + length * item_size > len(self._content):
            raise self._damaged(f"with a vector of {length} items")
        return start + 4, length

    def _referred(self, position: int) -> TableReader:
        target = position + self._number("<I", position)
        return TableReader(self._content, target, self._damaged)

    def _field(self, slot: int) -> int | None:
        """Where the value of a slot, or the offset to it, stands; None if it was left out."""
        entry = _VTABLE_HEADER + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._number("<H", self._vtable + entry)
        return self.position + offset if offset else None

    def _number(self, kind: str, position: int) -> Any:
        if not 0 <= position <= len(self._content) - struct.calcsize(kind):
            raise self._damaged(f"with an offset to byte {position}")
        return struct.unpack_from(kind, self._content, position)[0]
