import json
import tracemalloc
import zlib

import numpy as np
import pytest

from keras_kd.teachers.stored.records import RecordFile, header


def crafted(**changes):
    """A header as a file, with a checksum that is right whatever it says."""
    content = {
        "format": "keras_kd store",
        "version": 1,
        "dtype": [["values", "<f4", [3]]],
        "header": {},
        **changes,
    }
    content = {name: value for name, value in content.items() if value is not ...}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**content, "checksum": f"{zlib.crc32(text):08x}"}).encode()


@pytest.fixture
def read(store):
    """Read a store with these bytes as its header; a refusal may not take memory."""

    def read(content):
        (store / "store.json").write_bytes(content)
        tracemalloc.start()
        try:
            return header.read_header(store)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 50e6
            with pytest.raises(ValueError, match="Expected"):
                RecordFile(store)

    return read


def test_a_crafted_header_can_be_right(read):
    assert read(crafted(header={"a": 1})).entries == {"a": 1}


def test_a_header_comes_back(tmp_path, light):
    written = header.new_header(light.HEADER, light.DTYPE)
    header.write_header(tmp_path, written)
    assert header.read_header(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_fields_of_every_kind_of_number(tmp_path):
    kinds = ["?", "u1", "i1", "<f2", ">f4", "<f8", "<i8", ">u2"]
    dtype = np.dtype([(f"{kind} \N{SNOWMAN}", kind, (2, 3)) for kind in kinds])
    header.write_header(tmp_path, header.new_header({}, dtype))
    assert header.read_header(tmp_path).dtype == dtype


def test_a_changed_byte_anywhere(store):
    path = store / "store.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for change in (1, 32):
            changed = bytearray(content)
            changed[place] ^= change
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r"store\.json', which is damaged or|in version "):
                RecordFile(store)


def test_a_header_cut_at_any_length(store):
    path = store / "store.json"
    content = path.read_bytes()
    # The last byte ends the line, and nothing depends on it.
    for length in range(len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"store\.json', which is damaged or no header"):
            RecordFile(store)


def test_a_store_of_another_version(read, store):
    with pytest.raises(ValueError, match=r"in version 2 of its format\. Expected version 1"):
        read(crafted(version=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "parquet"},
        {"format": ...},
        {"dtype": ...},
        {"header": ...},
        {"header": []},
        {"header": "text"},
        {"more": 1},
        {"dtype": []},
        {"dtype": None},
        {"dtype": 5},
        {"dtype": {}},
        {"dtype": "<f4"},
        {"dtype": ["<f4"]},
        {"dtype": [["a", "<f4"]]},
        {"dtype": [["a", "<f4", [], 0]]},
        {"dtype": [[1, "<f4", []]]},
        {"dtype": [["", "<f4", []]]},
        {"dtype": [["a", "<f4", []], ["a", "<f4", []]]},
        {"dtype": [["a", 4, []]]},
        {"dtype": [["a", "|O", []]]},
        {"dtype": [["a", "|O8", []]]},
        {"dtype": [["a", "O", []]]},
        {"dtype": [["a", "|V8", []]]},
        {"dtype": [["a", "|S8", []]]},
        {"dtype": [["a", "<U8", []]]},
        {"dtype": [["a", "<M8[s]", []]]},
        {"dtype": [["a", "<c8", []]]},
        {"dtype": [["a", "<f3", []]]},
        {"dtype": [["a", "<f1", []]]},
        {"dtype": [["a", "|f4", []]]},
        {"dtype": [["a", "<f4,<f4", []]]},
        {"dtype": [["a", "<f4" * 1000, []]]},
        {"dtype": [["a", "<f4", None]]},
        {"dtype": [["a", "<f4", 3]]},
        {"dtype": [["a", "<f4", [0]]]},
        {"dtype": [["a", "<f4", [-1]]]},
        {"dtype": [["a", "<f4", [-1, -1]]]},
        {"dtype": [["a", "<f4", [1.5]]]},
        {"dtype": [["a", "<f4", [True]]]},
        {"dtype": [["a", "<f4", ["3"]]]},
        {"dtype": [["a", "<f4", [2**31]]]},
        {"dtype": [["a", "<f4", [2**62, 2**62]]]},
        {"dtype": [["a", "<f4", [10**4000]]]},
        {"dtype": [["a", "<f4", [2] * 100_000]]},
        {"dtype": [["a", "<f4", [1] * 100]]},
        {"dtype": [["a", "|u1", [2**30]], ["b", "|u1", [2**30]]]},
        {"dtype": [[f"a{n}", "|u1", [2**20]] for n in range(20_000)]},
    ],
)
def test_sealed_headers_that_no_writer_writes(read, changes):
    with pytest.raises(ValueError, match=r"store\.json', which is damaged or no header.*Expected"):
        read(crafted(**changes))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"null",
        b"[]",
        b'"text"',
        b"12",
        b"{",
        b"{}",
        b"[" * 100_000,
        b'{"format": "keras_kd store", "version": 1, "checksum": "00000000", "header": '
        + b'{"a": ' * 100_000
        + b"1"
        + b"}" * 100_001,
        b'{"a": 1e999, "checksum": "0"}',
        b'{"a": NaN, "checksum": "0"}',
        b'{"a": ' + b"1" * 100_000 + b', "checksum": "0"}',
        b'{"format": "keras_kd store", "version": [[[]]]}',
        b'{"format": "keras_kd store", "version": true, "checksum": {}}',
        b'{"format": {}, "checksum": []}',
        b"\xff\xfe{}",
        b"\x80\x04N.",
    ],
)
def test_files_that_are_no_headers(read, content):
    with pytest.raises(ValueError, match=r"damaged or no header of a store|in version"):
        read(content)


def test_a_header_larger_than_any_is_not_read(store):
    with (store / "store.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="has 1099511627776 bytes, and no header has more than"):
        RecordFile(store)


def test_a_sealed_header_that_claims_more_than_there_is(store, light):
    """The size of a record is believed only as far as there are bytes."""
    (store / "store.json").write_bytes(crafted(dtype=[["values", "<f8", [2**27]]]))
    checksum = header.read_header(store).checksum
    text = b"0 40 00000000"
    (store / "journal").write_bytes(b"%s %08x\n" % (text, zlib.crc32(text, checksum)))
    with pytest.raises(ValueError, match="Expected 42949672960 bytes, for the 40 records"):
        RecordFile(store)
