import os
import pickle
import threading

import numpy as np
import pytest

from keras_kd.teachers.stored.records import RecordFile, RecordWriter


def check_all(file, light, count):
    assert file.count == count
    file.verify()
    np.testing.assert_array_equal(file.read(np.arange(count)), light.records(0, count))


def replace_bytes(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.uint64])
def test_records_come_in_the_order_that_they_are_asked_for_in(store, light, dtype):
    rows = np.array([39, 0, 7, 7, 6, 20, 0], dtype=dtype)
    records = RecordFile(store).read(rows)
    assert records.dtype == light.DTYPE
    np.testing.assert_array_equal(records, light.records(0, 40)[rows])
    # They are a copy that its owner may change.
    records["values"] = 0


def test_no_records_are_no_error(store):
    assert RecordFile(store).read(np.array([])).shape == (0,)


@pytest.mark.parametrize("row", [-1, 40, 2**40])
def test_a_record_that_is_not_there(store, row):
    with pytest.raises(ValueError, match=rf"record number {row} of .*Expected a number below 40"):
        RecordFile(store).read([0, row])


def test_numbers_beyond_int64(store):
    with pytest.raises(ValueError, match="record number 18446744073709551615"):
        RecordFile(store).read(np.array([2**64 - 1], dtype=np.uint64))


@pytest.mark.parametrize("rows", [[0.0], [True], [[1, 2]], 3, ["1"]])
def test_numbers_that_are_none(store, rows):
    with pytest.raises(TypeError, match=r"numbers of records of shape .*Expected integers of"):
        RecordFile(store).read(rows)


def test_a_column_is_a_field_of_all_records(store, light):
    file = RecordFile(store)
    np.testing.assert_array_equal(file.column("key"), light.records(0, 40)["key"])
    values = file.column("values")
    assert values.shape == (40, 3)
    np.testing.assert_array_equal(values, light.records(0, 40)["values"])


def test_a_store_that_is_being_written_is_read_up_to_what_is_safe(tmp_path, light, small_chunks):
    with RecordWriter(tmp_path / "store", light.HEADER, light.DTYPE) as writer:
        writer.append(light.records(0, 10))
        file = RecordFile(tmp_path / "store")
        writer.append(light.records(10, 10))
        check_all(file, light, 10)
        check_all(RecordFile(tmp_path / "store"), light, 20)
    assert not file.complete


def test_a_path_where_nothing_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"which does not exist\. Expected the directory"):
        RecordFile(tmp_path / "missing")


def test_a_path_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"is a file\. Expected the directory that"):
        RecordFile(tmp_path / "file")


@pytest.mark.parametrize("name", ["journal", "records.bin", "store.json"])
def test_a_file_that_is_missing_or_none(store, name):
    (store / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"without the file {name}"):
        RecordFile(store)
    # Opening a pipe would wait for somebody to write to it.
    os.mkfifo(store / name)
    with pytest.raises(FileNotFoundError, match=f"without the file {name}"):
        RecordFile(store)


def test_records_cut_at_any_length(store, light):
    path = store / "records.bin"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"records.bin' of {length} bytes.*the 40 records of"):
            RecordFile(store)


def test_records_that_nobody_knows_of(store):
    replace_bytes(store / "records.bin", lambda content: content + b"\0")
    with pytest.raises(ValueError, match=r"records.bin' of 561 bytes. Expected 560 bytes"):
        RecordFile(store)


def test_a_changed_byte_anywhere_in_the_records(store, light):
    path = store / "records.bin"
    content = path.read_bytes()
    size = light.DTYPE.itemsize
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        file = RecordFile(store)
        chunk, first = place // size // 7, place // size // 7 * 7
        last = min(first + 7, 40) - 1
        damage = (
            rf"records.bin', whose chunk {chunk} is damaged: records {first} to {last}, bytes "
            rf"{first * size} to {(last + 1) * size - 1}, do not have their checksum\. Expected"
        )
        with pytest.raises(ValueError, match=damage):
            file.read([last])
        with pytest.raises(ValueError, match=damage):
            file.verify()
        with pytest.raises(ValueError, match=damage):
            file.column("key")
        whole = np.delete(np.arange(40), np.arange(first, last + 1))
        np.testing.assert_array_equal(file.read(whole), light.records(0, 40)[whole])


def test_records_of_another_store(store, tmp_path, light):
    """The same header and as many records, but others."""
    other = tmp_path / "other"
    with RecordWriter(other, light.HEADER, light.DTYPE) as writer:
        writer.append(light.records(40, 40))
        writer.finish()
    (other / "records.bin").replace(store / "records.bin")
    with pytest.raises(ValueError, match="chunk 0 is damaged"):
        RecordFile(store).verify()


def test_a_header_of_another_store(store, tmp_path, light):
    other = tmp_path / "other"
    RecordWriter(other, {"teacher": "other"}, light.DTYPE).close()
    (other / "store.json").replace(store / "store.json")
    with pytest.raises(ValueError, match="journal', whose line 1 is damaged; 0 records are whole"):
        RecordFile(store)


def test_a_file_that_is_cut_while_it_is_read(store):
    """A memory map would end the process with SIGBUS."""
    file = RecordFile(store)
    file.verify()
    os.truncate(store / "records.bin", 100)
    with pytest.raises(ValueError, match=r"records.bin' of 100 bytes"):
        file.read([39])


def test_a_file_that_is_deleted_while_it_is_read(store, light):
    file = RecordFile(store)
    for path in store.iterdir():
        path.unlink()
    check_all(file, light, 40)


def test_many_threads_read_at_once(store, light):
    file = RecordFile(store)
    expected = light.records(0, 40)
    wrong, start = [], threading.Barrier(16)

    def read(seed):
        chance = np.random.default_rng(seed)
        start.wait()
        for _ in range(200):
            rows = chance.integers(0, 40, 5)
            if not np.array_equal(file.read(rows), expected[rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_pickled_file_opens_its_path_again(store, light, monkeypatch, tmp_path):
    monkeypatch.chdir(store.parent)
    content = pickle.dumps(RecordFile(store.name))
    assert len(content) < 1000
    monkeypatch.chdir("/")
    check_all(pickle.loads(content), light, 40)


def test_closing_gives_everything_back(store):
    before = len(os.listdir("/proc/self/fd"))
    files = [RecordFile(store) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) > before
    del files
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
def test_reading_takes_far_less_memory_than_the_store(run, tmp_path):
    seen = run("memory", tmp_path / "store")
    assert seen["store"] > 900e6
    assert seen["read"] > seen["store"]
    # What is mapped at once, and a margin for what the allocator keeps.
    assert seen["peak"] < 200e6
    assert seen["peak of a column"] < 50e6
