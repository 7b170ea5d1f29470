import errno
import gc
import os
import re
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from keras_kd.teachers.stored import database, store_file
from keras_kd.teachers.stored.database import Records, RecordWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def open_writer(path, light):
    """Open the store as it is opened in every test."""
    return lambda **options: light.new(database, path, **options)


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def check_records(path, light, count):
    records = Records(path)
    light.check_all(records, count)
    records.close()


def test_what_was_written_is_read(path, light, open_writer):
    with open_writer() as opened:
        light.write(opened, 40)
        assert opened.complete
    check_records(path, light, 40)
    records = Records(path)
    assert records.complete
    assert records.has_keys
    assert records.description == light.DESCRIPTION
    assert names(path) == ["store"]


def test_without_keys(path, light):
    with RecordWriter(path, {}, light.DTYPE.itemsize) as opened:
        opened.append(None, *light.records(0, 5)[1:])
        opened.finish()
    records = Records(path)
    assert not records.has_keys
    rows = records.read([4, 2])
    assert rows.keys.tolist() == [0, 0]
    assert rows.outputs == [light.records(place, 1)[2].tobytes() for place in (4, 2)]
    records.verify()


def test_systems_without_the_calls_of_unix(run, path):
    assert run("elsewhere", path) is False


def test_a_store_to_which_nothing_came_is_removed(path, open_writer, light):
    with open_writer() as opened:
        opened.append(*light.records(0, 0))
    assert names(path) == []
    with suppress(ZeroDivisionError), open_writer():
        raise ZeroDivisionError
    assert names(path) == []


def test_a_file_has_the_rights_that_other_files_have(path, light, open_writer, tmp_path):
    with open_writer() as opened:
        light.write(opened, 1)
    (tmp_path / "ordinary").write_text("")
    ordinary = stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == ordinary


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("stop", [3, 39, 40])
def test_an_interrupted_store_ends_as_if_it_had_not_been(path, light, open_writer, stop, batch):
    with open_writer() as opened:
        opened.append(*light.records(0, stop))
    assert not Records(path).complete
    check_records(path, light, stop)
    with open_writer() as opened:
        assert (opened.count, opened.complete) == (stop, False)
        light.write(opened, 40, batch)
    check_records(path, light, 40)
    assert Records(path).complete
    assert names(path) == ["store"]


def test_examples_are_kept_as_wholes(path, light, open_writer):
    keys, marks, outputs = light.records(0, 4)
    every = [np.repeat(part, 3) for part in (keys, marks, outputs)]
    with open_writer(versions=3) as opened:
        opened.append(*(part[:8] for part in every))
    assert Records(path).count == 6
    with open_writer(versions=3) as opened:
        assert opened.count == 6
        opened.append(*(part[6:] for part in every))
        opened.finish()
    records = Records(path)
    assert records.read(np.arange(12)).outputs == [one.tobytes() for one in every[2]]
    records.verify()


def test_a_complete_store_is_left_alone(path, open_writer, light):
    with open_writer() as opened:
        light.write(opened, 40)
    before = path.read_bytes(), path.stat().st_mtime_ns
    with open_writer() as opened:
        assert (opened.count, opened.complete) == (40, True)
        opened.finish()
        with pytest.raises(ValueError, match=r"which is complete.*Expected a store that is open"):
            opened.append(*light.records(40, 1))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_records_are_safe_after_about_a_second(path, light, open_writer, monkeypatch):
    with open_writer() as opened:
        opened.append(*light.records(0, 5))
        assert opened.count == 0
        with pytest.raises(FileNotFoundError):
            Records(path)
        # A second has passed.
        monkeypatch.setattr(database, "COMMIT_SECONDS", 0.0)
        opened.append(*light.records(5, 1))
        assert opened.count == Records(path).count == 6
        monkeypatch.setattr(database, "COMMIT_SECONDS", 60.0)
        opened.append(*light.records(6, 1))
        assert opened.count == Records(path).count == 6
        # Much has come.
        monkeypatch.setattr(database, "COMMIT_BYTES", 20)
        opened.append(*light.records(7, 1))
        assert opened.count == Records(path).count == 8
    check_records(path, light, 8)


def test_commits_wait_for_the_disk(open_writer, path, light):
    """SQLite's promise: the journal before the file, the file before the journal goes."""
    with open_writer() as opened:
        light.write(opened, 5)
        settings = {
            name: opened._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "trusted_schema", "cell_size_check")
        }
    assert settings == {
        "synchronous": 3,
        "journal_mode": b"delete",
        "trusted_schema": 0,
        "cell_size_check": 1,
    }


def test_an_error_in_the_block_keeps_what_was_appended(path, light, open_writer):
    with suppress(ZeroDivisionError), open_writer() as opened:
        opened.append(*light.records(0, 12))
        raise ZeroDivisionError
    check_records(path, light, 12)


@pytest.mark.usefixtures("every_append")
def test_an_interrupt_between_any_two_lines(quick_disk, light):
    """Control-C raises KeyboardInterrupt wherever Python happens to be."""
    path = quick_disk / "store"
    line, interrupted = 0, True
    counts = set()
    # Only what these tests make is looked through for garbage.
    gc.freeze()
    while interrupted:
        line += 1
        interrupted = interrupt_at(line, lambda: fill(path, light))
        with suppress(FileNotFoundError):
            records = Records(path)
            light.check_all(records, records.count)
            counts.add(records.count)
            records.close()
        fill(path, light)
        records = Records(path)
        light.check_all(records, 4)
        assert records.complete
        records.close()
        assert names(path) == ["store"]
        path.unlink()
    gc.unfreeze()
    assert {2, 4} <= counts


def fill(path, light):
    with light.new(database, path) as opened:
        light.write(opened, 4, 2)


def interrupt_at(number, function):
    """Run `function`, raise KeyboardInterrupt at a line of the database; whether that line came."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename not in (database.__file__, store_file.__file__):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        pass
    else:
        return False
    finally:
        sys.settrace(before)
    # What was interrupted while it was closing is closed with the traceback that holds it.
    gc.collect()
    return True


@pytest.mark.parametrize(
    "change",
    [
        {"description": {"teacher": "other"}},
        {"has_keys": False},
    ],
)
def test_another_description_is_refused(path, light, open_writer, change):
    with open_writer() as opened:
        light.write(opened, 12)
    before = path.read_bytes()
    options = {"description": light.DESCRIPTION, "has_keys": True} | change
    with pytest.raises(ValueError, match=r"for the store .*begun with .*To fix it: pass what it"):
        RecordWriter(path, record_bytes=light.DTYPE.itemsize, **options)
    assert path.read_bytes() == before
    open_writer().close()


@pytest.mark.parametrize(("size", "text"), [(10**9, "x"), (1, "x" * (1 << 20))])
def test_what_is_too_large_for_a_row(path, size, text):
    with pytest.raises(ValueError, match=r"records of \d+ bytes, and a description of"):
        RecordWriter(path, {"text": text}, size)
    assert names(path) == []


def test_records_that_are_not_contiguous(path, light, open_writer):
    with open_writer() as opened:
        opened.append(*(np.repeat(part, 2)[::2] for part in light.records(0, 6)))
    check_records(path, light, 6)


def test_a_closed_writer_says_so(light, open_writer):
    with open_writer() as opened:
        pass
    with pytest.raises(ValueError, match=r"which is closed.*append inside its with block"):
        opened.append(*light.records(0, 1))


def test_two_writers_in_one_process(path, light, open_writer):
    with open_writer() as opened:
        for _ in range(2):
            with pytest.raises(BlockingIOError, match=r"another writer has open.*one writer at a"):
                open_writer()
            opened.append(*light.records(opened._there(), 5))
    check_records(path, light, 10)
    open_writer().close()


def test_two_writers_in_two_processes(path, light, open_writer, start):
    other = start("hold", path)
    assert other.stdout.readline() == "ready\n", other.communicate()[1]
    with pytest.raises(BlockingIOError, match=r"another writer has open"):
        open_writer()
    other.kill()
    other.wait()
    with open_writer() as opened:
        assert opened.count == 0
        # A reader in the writer's process does not take its lock.
        opened.append(*light.records(0, 5))
        opened._commit()
        Records(path).close()
        late = start("hold", path)
        assert "BlockingIOError" in late.communicate()[1]


def test_a_disk_that_is_full(path, light, run):
    first, second, last = run("fill", path)
    assert first["count"] > 1000
    assert (first["errno"], last["error"]) == (errno.EIO, None)
    assert f"valid up to record {first['count']}" in first["error"]
    missing = (10_000 - first["count"]) * light.DTYPE.itemsize
    assert f"Expected {missing} more bytes for it, on a disk that can" in first["error"]
    assert "To fix it: free space and run again" in first["error"]
    assert second["count"] > first["count"]
    assert "Expected more space for it" in second["error"]
    assert last["count"] == 10_000
    check_records(path, light, 10_000)
    assert Records(path).complete


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 192 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system, and not everywhere")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.usefixtures("every_append")
def test_a_file_system_that_is_full(full_disk, light):
    path = full_disk / "store"
    with (
        pytest.raises(OSError, match=r"'database or disk is full' while writing") as error,
        light.new(database, path) as opened,
    ):
        light.write(opened, 10_000, 100)
    assert error.value.errno == errno.ENOSPC
    count = int(re.search(r"valid up to record (\d+)\.", str(error.value))[1])
    assert count > 1000
    check_records(path, light, count)
    with light.new(database, path) as opened:
        assert opened.count == count


def test_a_directory_that_cannot_be_written(run):
    # Root may write anywhere: the program becomes somebody else, who must be able to come here.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o555)
        name, message = run("forbid", Path(directory, "store"))
    assert name == "PermissionError"
    assert "where nothing can be written" in message


def test_a_path_that_is_a_directory(path, open_writer):
    path.mkdir()
    with pytest.raises(IsADirectoryError, match=r"which is a directory\. .*choose another"):
        open_writer()


def test_a_directory_that_does_not_exist(tmp_path, light):
    with pytest.raises(FileNotFoundError, match=r"mkdir -p"):
        light.new(database, tmp_path / "missing" / "store")


def test_a_file_that_is_something_else(path, open_writer):
    path.write_text("Dear diary")
    with pytest.raises(ValueError, match=r"damaged or not a store\. .*an unused name"):
        open_writer()
    assert path.read_text() == "Dear diary"


def test_an_empty_file_will_do(path, light, open_writer):
    path.touch()
    with open_writer() as opened:
        light.write(opened, 3)
    check_records(path, light, 3)


def test_a_damaged_store_is_not_gone_on_with(path, light, open_writer):
    with open_writer() as opened:
        opened.append(*light.records(0, 12))
    content = path.read_bytes()
    for part, other in ((b'"wise"', b'"wisf"'), (b"CREATE TABLE store", b"CREATE TABLE Store")):
        path.write_bytes(content.replace(part, other))
        before = path.read_bytes()
        assert before != content
        with pytest.raises(ValueError, match=r"store', which is damaged"):
            open_writer()
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["store", "store-journal"])
@pytest.mark.parametrize("finished", [False, True])
def test_links_are_not_followed(path, light, open_writer, name, finished, tmp_path):
    with open_writer() as opened:
        opened.append(*light.records(0, 12))
        if finished:
            opened.finish()
    file, victim = path.with_name(name), tmp_path / "victim"
    if name == "store":
        file.rename(victim)
    else:
        victim.write_bytes(b"mine" * 1000)
    before = victim.read_bytes()
    file.symlink_to(victim)
    for act in (open_writer, lambda: Records(path)):
        with pytest.raises(
            ValueError, match=rf"{name}', which is a symbolic link\. Expected .*copy"
        ):
            act()
    assert victim.read_bytes() == before
    file.unlink()
    os.link(victim, file)
    # What is read is the same by any name; what is written would be written by both.
    if name == "store":
        Records(path).close()
    with pytest.raises(ValueError, match=rf"{name}', which has another name"):
        open_writer()
    assert victim.read_bytes() == before


def test_links_in_the_way_of_a_new_store_are_not_followed(path, open_writer, tmp_path):
    victim = tmp_path / "victim"
    for file in (path, path.with_name("store-journal")):
        file.symlink_to(victim)
        for _ in range(2):
            with pytest.raises(ValueError, match="which is a symbolic link"):
                open_writer()
            assert not victim.exists() or victim.read_bytes() == b""
            victim.touch()
        file.unlink()
        victim.unlink()
