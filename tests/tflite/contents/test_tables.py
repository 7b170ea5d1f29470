import struct
from enum import IntEnum

import numpy as np
import pytest

from keras_kd.tflite.contents.tables import TableReader, write_tables


class Kind(IntEnum):
    THIRD = 3


CONTENT = write_tables(
    {
        0: "text \N{GREEK SMALL LETTER PI} ü",
        1: "",
        3: {0: 7, 1: 0.5},
        4: (1.0, 2.5, -3.0),
        5: [{0: "first", 1: Kind.THIRD}, {}, {2: [{0: "deep"}]}],
    },
    b"TEST",
)


def test_round_trip():
    root = TableReader.root(CONTENT, b"TEST")
    assert root.text(0) == "text \N{GREEK SMALL LETTER PI} ü"
    assert root.table(3).number(0, "<I") == 7
    assert root.table(3).number(1, "<f") == 0.5
    assert root.floats(4) == (1.0, 2.5, -3.0)
    first, second, third = root.tables(5)
    assert first.text(0) == "first"
    assert first.number(1, "<B") == 3
    assert second.text(0) == ""
    assert next(third.tables(2)).text(0) == "deep"


def test_what_was_left_out_is_empty():
    root = TableReader.root(CONTENT, b"TEST")
    for slot in (1, 2, 6, 1000):
        assert root.text(slot) == ""
        assert root.floats(slot) == ()
        assert root.table(slot) is None
        assert list(root.tables(slot)) == []
        assert root.number(slot, "<f", 0.25) == 0.25


def test_other_content_is_refused():
    for content in (b"", b"1234TES", CONTENT[:4] + b"M001" + CONTENT[8:]):
        with pytest.raises(ValueError, match="without the letters 'TEST'"):
            TableReader.root(content, b"TEST")


def test_giant_vectors_are_refused_at_once():
    position = CONTENT.index(struct.pack("<Ifff", 3, 1.0, 2.5, -3.0))
    damaged = CONTENT[:position] + b"\xff\xff\xff\xff" + CONTENT[position + 4 :]
    with pytest.raises(ValueError, match="4294967295 items"):
        TableReader.root(damaged, b"TEST").floats(4)


def test_offsets_out_of_the_bytes_are_refused():
    damaged = b"\xf0\xff\xff\x7f" + CONTENT[4:]
    with pytest.raises(ValueError, match="an offset to byte 2147483632"):
        TableReader.root(damaged, b"TEST")


def _read_all(content):
    root = TableReader.root(content, b"TEST")
    root.text(0)
    root.floats(4)
    if root.table(3) is not None:
        root.table(3).number(0, "<I")
        root.table(3).number(1, "<f")
    for table in root.tables(5):
        table.text(0)
        table.number(1, "<B")
        for deep in table.tables(2):
            deep.text(0)


def test_damage_ends_in_one_line_or_is_not_seen(is_refused):
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(CONTENT)
        for index in generator.integers(len(CONTENT), size=generator.integers(1, 5)):
            damaged[index] = generator.choice([0, 1, 0x7F, 0x80, 0xFF, generator.integers(256)])
        damaged = bytes(damaged[: generator.integers(len(CONTENT) // 2, 2 * len(CONTENT))])
        refused += is_refused(_read_all, damaged)
    assert refused > 300
