import io
import struct
import zipfile

import numpy as np
import pytest

from keras_kd.tflite.contents.archive import append_files, read_file

FRONT = b"TFL3" + bytes(range(256)) * 2
CONTENT = append_files(FRONT, {"labels.txt": b"cat\ndog", "other.csv": b"1,2,3"})


def test_round_trip():
    assert CONTENT.startswith(FRONT)
    assert read_file(CONTENT, "labels.txt") == b"cat\ndog"
    assert read_file(CONTENT, "other.csv") == b"1,2,3"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../labels.txt", "/labels.txt", "a\\labels.txt", "a/labels.txt"]
)
def test_names_that_are_paths_are_refused(name):
    with pytest.raises(ValueError, match="a name without a directory"):
        read_file(_archive(name or "x"), name)


def test_files_that_are_not_there():
    with pytest.raises(ValueError, match=r"'missing\.txt' which is not there"):
        read_file(CONTENT, "missing.txt")
    with pytest.raises(ValueError, match="no readable archive"):
        read_file(FRONT, "labels.txt")


def test_compressed_files_are_refused():
    bomb = _archive("labels.txt", b"a\n" * 10_000_000, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 50_000
    with pytest.raises(ValueError, match="compressed or encrypted"):
        read_file(bomb, "labels.txt")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (8, struct.pack("<H", 1), "compressed or encrypted"),
        (20, b"\xfe\xff\xff\x7f" * 2, "declared size of 2147483646 bytes"),
        (24, b"\xfe\xff\xff\x7f", "declared size of 2147483646 bytes"),
        (16, b"\0\0\0\0", "no readable archive.*CRC"),
        (42, b"\xfe\xff\xff\x7f", "no readable archive"),
    ],
    ids=["encrypted", "both sizes", "one size", "checksum", "offset"],
)
def test_damaged_entries(field, value, message):
    """The entry of labels.txt in the directory of the archive, at the given byte."""
    position = CONTENT.index(b"PK\x01\x02") + field
    damaged = CONTENT[:position] + value + CONTENT[position + len(value) :]
    with pytest.raises(ValueError, match=message):
        read_file(damaged, "labels.txt")


def test_damage_ends_in_one_line_or_is_not_seen(is_refused):
    generator = np.random.default_rng(0)
    start, refused = len(FRONT), 0
    for _ in range(1000):
        damaged = bytearray(CONTENT)
        for index in generator.integers(start, len(CONTENT), size=generator.integers(1, 6)):
            damaged[index] = generator.choice([0, 0x7F, 0xFF, generator.integers(256)])
        damaged = bytes(damaged[: generator.integers(start, 2 * len(CONTENT))])
        refused += is_refused(read_file, damaged, "labels.txt")
    assert refused > 300


def _archive(name, data=b"cat", compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()
