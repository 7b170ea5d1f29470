import json
import struct
import zipfile

import pytest

from keras_kd._archives import check_json_size, check_members, read_json

MEBIBYTE = 1 << 20


def test_no_archive(tmp_path):
    (tmp_path / "file").write_bytes(b"PK")
    with pytest.raises(ValueError, match="no zip archive"):
        check_members(tmp_path / "file")


def zeros(path, sizes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, size in enumerate(sizes):
            archive.writestr(f"{number}", bytes(size))
    return path


def test_members_are_added_up(tmp_path):
    check_members(zeros(tmp_path / "small.zip", [16 * MEBIBYTE] * 3))
    with pytest.raises(ValueError, match="the sum of its 5 members declares 83886080 bytes"):
        check_members(zeros(tmp_path / "large.zip", [16 * MEBIBYTE] * 5))


def test_members_that_share_their_bytes(tmp_path):
    """Each is in proportion to what it says is stored of it, which is stored once for all."""
    path = zeros(tmp_path / "shared.zip", [8 * MEBIBYTE])
    content = path.read_bytes()
    place = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = bytearray(content[place:end])
    entries = b""
    for number in range(12):
        entry[-1:] = b"abcdefghijkl"[number : number + 1]
        # They say that far more is stored.
        entry[20:24] = struct.pack("<I", 4 * MEBIBYTE)
        entries += bytes(entry)
    ending = bytearray(content[end:])
    ending[8:16] = struct.pack("<HHI", 12, 12, len(entries))
    path.write_bytes(content[:place] + entries + bytes(ending))
    with pytest.raises(ValueError, match="the sum of its 12 members declares 100663296 bytes"):
        check_members(path)


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_kd._archives.MOST_MEMBERS", 3)
    check_members(zeros(tmp_path / "three.zip", [0] * 3))
    with pytest.raises(ValueError, match="it has 4 members, more than 3"):
        check_members(zeros(tmp_path / "four.zip", [0] * 4))


def test_a_description_is_limited_before_it_is_read(tmp_path):
    value = {"layers": list(range(1000))}
    path = tmp_path / "file.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.json", json.dumps(value))
        archive.writestr("compressed.json", "[" + "[]," * MEBIBYTE + "[]]")
        archive.writestr("large.json", b" " * (16 * MEBIBYTE + 1), zipfile.ZIP_STORED)
    with zipfile.ZipFile(path) as archive:
        assert read_json(archive, "good.json") == value
        with pytest.raises(ValueError, match=r"its compressed.json declares 3145732 bytes, of"):
            read_json(archive, "compressed.json")
        with pytest.raises(ValueError, match=r"its large.json has 16777217 bytes, more than"):
            read_json(archive, "large.json")
    check_json_size("its config", 16 * MEBIBYTE)
