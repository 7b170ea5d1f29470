"""FlatBuffer tables: written from mappings, and read back from bytes that nobody vouches for.

A table is a mapping from slots to values. How a value is stored follows from its type, as far as
the schema of TFLite metadata needs it: members of enumerations (types of unions among them) as one
byte, other integers in 32 bits, floats in 32 bits, text in UTF-8; mappings are tables, sequences
are vectors of tables or of floats. Empty text is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import numpy as np

from keras_kd._checks import three_parts

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


class TableReader:
    """One table in a FlatBuffer. Nothing outside of the bytes is read, wherever they point.

    Args:
        content: the bytes.
        position: where the table begins.
    """

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self._position = position
        # The vtable may stand on either side of its table.
        self._vtable = position - self._number("<i", position)
        self._vtable_size = self._number("<H", self._vtable)

    @classmethod
    def root(cls, content: bytes, identifier: bytes) -> TableReader:
        """The root table.

        Raises:
            ValueError: if the bytes do not begin like such a FlatBuffer.
        """
        if content[4:8] != identifier or len(content) < 8:
            raise ValueError(_damaged(f"metadata of {len(content)} bytes that are not marked so"))
        return cls(content, struct.unpack_from("<I", content)[0])

    def number(self, slot: int, kind: str, default: float = 0) -> Any:
        """A number as `struct` unpacks it: "<B" an enumeration, "<I" an integer, "<f" a float."""
        position = self._field(slot)
        return default if position is None else self._number(kind, position)

    def text(self, slot: int) -> str:
        """Text, empty if there is none."""
        start, length = self._vector(slot, item_size=1)
        try:
            return self._content[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(_damaged("metadata with text that is not UTF-8")) from error

    def floats(self, slot: int) -> tuple[float, ...]:
        """A vector of floats."""
        start, length = self._vector(slot, item_size=4)
        return struct.unpack_from(f"<{length}f", self._content, start)

    def table(self, slot: int) -> TableReader | None:
        """A table, None if it is not there."""
        position = self._field(slot)
        return None if position is None else TableReader(self._content, self._target(position))

    def tables(self, slot: int) -> list[TableReader]:
        """A vector of tables."""
        start, length = self._vector(slot, item_size=4)
        positions = range(start, start + 4 * length, 4)
        return [TableReader(self._content, self._target(position)) for position in positions]

    def _field(self, slot: int) -> int | None:
        """Where the value of a slot, or the offset to it, stands; None if it was left out."""
        entry = _VTABLE_HEADER + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._number("<H", self._vtable + entry)
        return self._position + offset if offset else None

    def _target(self, position: int) -> int:
        return position + self._number("<I", position)

    def _vector(self, slot: int, item_size: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are."""
        position = self._field(slot)
        if position is None:
            return 0, 0
        start = self._target(position)
        length = self._number("<I", start)
        if start + 4 + length * item_size > len(self._content):
            raise ValueError(_damaged(f"metadata that say to hold {length} items in one place"))
        return start + 4, length

    def _number(self, kind: str, position: int) -> Any:
        if not 0 <= position <= len(self._content) - struct.calcsize(kind):
            raise ValueError(_damaged(f"metadata that point to byte {position} of themselves"))
        return struct.unpack_from(kind, self._content, position)[0]


def _damaged(received: str) -> str:
    return three_parts(
        received,
        "undamaged TFLite metadata",
        "add the metadata again with keras_kd.tflite.android.add_metadata",
    )
