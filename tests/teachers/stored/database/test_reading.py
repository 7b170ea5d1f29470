import os
import pickle
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from keras_kd.teachers.stored import database
from keras_kd.teachers.stored.database import Records


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_records_come_in_the_order_that_they_are_asked_for_in(store, light, dtype):
    places = np.array([39, 0, 7, 7, 6, 20, 0], dtype=dtype)
    light.check(Records(store).read(places), places)


def test_more_than_one_statement_takes(store, light, monkeypatch):
    monkeypatch.setattr(database, "_AT_ONCE", 7)
    places = np.tile(np.arange(40)[::-1], 2)
    light.check(Records(store).read(places), places)
    np.testing.assert_array_equal(Records(store).find(light.keys(0, 40)), np.arange(40))


def test_no_records_are_no_error(store):
    rows = Records(store).read(np.array([], np.int64))
    assert (len(rows.keys), rows.outputs) == (0, [])
    assert Records(store).find(np.array([], np.int64)).shape == (0,)


@pytest.mark.parametrize("place", [-1, 40, 2**40])
def test_a_record_that_is_not_there(store, place):
    with pytest.raises(
        ValueError, match=rf"the record {place} of .*Expected a number from 0 to 39"
    ):
        Records(store).read([0, place])


def test_records_are_found_by_their_keys(store, light):
    keys = np.concatenate([light.keys(38, 4), light.keys(0, 1), light.keys(38, 1), [0]])
    assert Records(store).find(keys).tolist() == [38, 39, -1, -1, 0, 38, -1]


def test_the_first_version_is_found(tmp_path, light):
    keys, marks, outputs = light.records(0, 4)
    with light.new(database, tmp_path / "s", versions=2) as writer:
        writer.append(np.repeat(keys, 2), np.repeat(marks, 2), np.repeat(outputs, 2))
        assert writer.find(keys).tolist() == [0, 2, 4, 6]
        writer.finish()
    assert Records(tmp_path / "s").find(keys[::-1]).tolist() == [6, 4, 2, 0]


def test_a_store_that_is_being_written_is_read_up_to_what_is_safe(tmp_path, light, monkeypatch):
    with light.new(database, tmp_path / "store") as writer:
        writer.append(*light.records(0, 10))
        monkeypatch.setattr(database, "COMMIT_SECONDS", 0.0)
        writer.append(*light.records(10, 10))
        before = Records(tmp_path / "store")
        monkeypatch.setattr(database, "COMMIT_SECONDS", 60.0)
        writer.append(*light.records(20, 10))
        light.check_all(before, 20)
        light.check_all(Records(tmp_path / "store"), 20)
    assert not before.complete
    light.check_all(Records(tmp_path / "store"), 30)


def test_a_path_where_nothing_is(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"which does not exist\. Expected the file that"):
        Records(tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(FileNotFoundError, match=r"interrupted before its first record"):
        Records(tmp_path / "empty")


def test_a_path_that_is_a_directory(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a directory\. Expected the file that Stored"):
        Records(tmp_path)


def test_what_is_no_file(tmp_path):
    # Opening a pipe would wait for somebody to write to it.
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe', which is no regular file"):
        Records(tmp_path / "pipe")


def test_names_that_mean_something_in_an_address(tmp_path, light):
    path = tmp_path / "a?mode=memory#b%20 ü'.store"
    with light.new(database, path) as writer:
        light.write(writer, 5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    light.check_all(Records(path), 5)


def test_reading_needs_no_right_to_write(store, light):
    """Nothing is made beside a store, and nothing in it changes."""
    before = store.read_bytes(), store.stat().st_mtime_ns
    store.chmod(0o444)
    store.parent.chmod(0o555)
    try:
        records = Records(store)
        light.check_all(records, 40)
        assert os.listdir(store.parent) == [store.name]
    finally:
        store.parent.chmod(0o755)
    assert before == (store.read_bytes(), store.stat().st_mtime_ns)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        records._connection.execute("DELETE FROM records")


def test_the_write_ahead_log_is_refused(store):
    """Its readers would write beside the store."""
    content = bytearray(store.read_bytes())
    content[18:20] = b"\2\2"
    store.write_bytes(content)
    with pytest.raises(ValueError, match=r"version 1\.2\.2 of its format"):
        Records(store)
    assert os.listdir(store.parent) == [store.name]


def test_a_file_that_is_cut_while_it_is_read(store):
    """A memory map would end the process with SIGBUS."""
    records = Records(store)
    records.verify()
    os.truncate(store, 100)
    with pytest.raises(ValueError, match=r"is damaged: .*malformed"):
        records.read([39])


def test_a_file_that_is_deleted_while_it_is_read(store, light):
    records = Records(store)
    store.unlink()
    light.check_all(records, 40)


def test_many_threads_read_at_once(store, light):
    records = Records(store)
    wrong, start = [], threading.Barrier(16)

    def read(seed):
        chance = np.random.default_rng(seed)
        start.wait()
        for _ in range(50):
            places = chance.integers(0, 40, 5)
            try:
                light.check(records.read(places), places)
                light.check(records.read(records.find(light.keys(0, 40)[places])), places)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_process_opens_the_file_again(store, light):
    """SQLite must not use, nor close, what was open when its process was forked."""
    records = Records(store)
    light.check_all(records, 40)
    child = os.fork()
    if child == 0:
        try:
            light.check(records.read([3, 39]), [3, 39])
            records.close()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    light.check_all(records, 40)


def test_pickled_records_open_their_path_again(store, light, monkeypatch):
    monkeypatch.chdir(store.parent)
    content = pickle.dumps(Records(store.name))
    assert len(content) < 1000
    monkeypatch.chdir("/")
    light.check_all(pickle.loads(content), 40)


def test_closing_gives_everything_back(store):
    before = len(os.listdir("/proc/self/fd"))
    records = [Records(store) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) > before
    del records
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_journal_where_nothing_may_be_written(store, light):
    """A reader that may not undo what a killed writer had begun says so."""
    journal = store.with_name("store-journal")
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute("UPDATE records SET checksum = 0, outputs = zeroblob(3000)")
    half = store.read_bytes(), journal.read_bytes()
    connection.close()
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "store")
        for file, content in zip((copy, copy.with_name("store-journal")), half, strict=True):
            file.write_bytes(content)
            file.chmod(0o444)
        os.chmod(name, 0o555)
        program = (
            "import os, sys; sys.path.insert(0, sys.argv[3]); import light; "
            "database = light.database(sys.argv[1]); os.geteuid() or os.seteuid(65534); "
            "database.Records(sys.argv[2])"
        )
        root = Path(database.__file__).parents[3]
        command = [sys.executable, "-c", program, root, copy, Path(__file__).parent / "programs"]
        process = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert "PermissionError: Received the store" in process.stderr
        assert "write access to the file and its directory" in process.stderr
        os.chmod(name, 0o755)
        for file in copy.parent.iterdir():
            file.chmod(0o644)
        light.check_all(Records(copy), 40)
        assert os.listdir(name) == ["store"]


@pytest.mark.slow
def test_memory_stays_far_below_the_store(run, tmp_path):
    seen = run("memory", tmp_path / "store")
    assert seen["store"] > 900e6
    assert seen["read"] > seen["store"]
    assert seen["peak while writing"] < 100e6
    assert seen["peak"] < 50e6
