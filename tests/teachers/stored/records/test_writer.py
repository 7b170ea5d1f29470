import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from keras_kd.teachers.stored.records import RecordFile, RecordWriter, writer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def open_writer(path, light):
    """Open the store as it is opened in every test."""
    return lambda **options: RecordWriter(path, light.HEADER, light.DTYPE, **options)


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def check_records(path, light, count):
    file = RecordFile(path)
    file.verify()
    np.testing.assert_array_equal(file.read(np.arange(count)), light.records(0, count))
    assert file.count == count


def test_what_was_written_is_read(path, light, open_writer):
    with open_writer() as opened:
        light.write(opened, 40)
        assert opened.complete
    check_records(path, light, 40)
    file = RecordFile(path)
    assert file.complete
    assert file.header == light.HEADER
    assert file.dtype == light.DTYPE
    assert sorted(content(path)) == ["journal", "records.bin", "store.json"]


def test_a_store_of_no_records(path, light, open_writer):
    with open_writer() as opened:
        opened.append(light.records(0, 0))
        opened.finish()
    file = RecordFile(path)
    assert (file.count, file.complete) == (0, True)
    assert file.read([]).shape == (0,)
    file.verify()


def test_files_have_the_rights_that_other_files_have(path, light, open_writer, tmp_path):
    with open_writer() as opened:
        light.write(opened, 1)
    (tmp_path / "ordinary").write_text("")
    ordinary = stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {ordinary}


@pytest.mark.parametrize("batch", [1, 7, 8, 100])
@pytest.mark.parametrize("stop", [0, 3, 7, 15, 39, 40])
@pytest.mark.usefixtures("small_chunks")
def test_an_interrupted_store_ends_as_if_it_had_not_been(store, path, light, stop, batch):
    before = content(store)
    path = path.with_name("interrupted")
    with RecordWriter(path, light.HEADER, light.DTYPE) as opened:
        opened.append(light.records(0, stop))
    assert not RecordFile(path).complete
    check_records(path, light, stop)
    with RecordWriter(path, light.HEADER, light.DTYPE) as opened:
        assert opened.count == stop
        assert not opened.complete
        light.write(opened, 40, batch)
    assert content(path) == before


def test_a_complete_store_is_left_alone(store, open_writer, light):
    before = content(store)
    with open_writer() as opened:
        assert (opened.count, opened.complete) == (40, True)
        opened.finish()
        with pytest.raises(ValueError, match=r"complete.*Expected a store that is not"):
            opened.append(light.records(40, 1))
    assert content(store) == before


def test_records_are_safe_after_about_a_second(path, light, open_writer, monkeypatch):
    with open_writer() as opened:
        opened.append(light.records(0, 5))
        assert opened.count == RecordFile(path).count == 0
        # A second has passed.
        monkeypatch.setattr(writer, "COMMIT_SECONDS", 0.0)
        opened.append(light.records(5, 1))
        assert opened.count == RecordFile(path).count == 6
    check_records(path, light, 6)


@pytest.fixture
def calls(monkeypatch):
    """What the system is asked to write and to synchronise, in order, by the files' names."""
    calls = []

    def noting(name, file_name):
        function = getattr(os, name)

        def note(first, *arguments):
            calls.append((name, Path(file_name(first)).name))
            return function(first, *arguments)

        monkeypatch.setattr(os, name, note)

    for name in ("pwrite", "fdatasync", "fsync"):
        noting(name, lambda file: os.readlink(f"/proc/self/fd/{file}"))
    noting("replace", lambda path: path)
    return calls


@pytest.mark.usefixtures("small_chunks")
def test_the_journal_speaks_of_what_is_on_the_disk(light, open_writer, calls):
    with open_writer() as opened:
        light.write(opened, 40)
    unsafe = set()
    for name, file in calls:
        if name == "pwrite":
            assert file != "journal" or "records.bin" not in unsafe
            unsafe.add(file)
        elif name in ("fdatasync", "fsync"):
            unsafe.discard(file)
    assert ("pwrite", "journal") in calls
    assert unsafe == set()
    # The journal of the complete store is on the disk before it has its name, and then its name is.
    assert [name for name, _ in calls[-3:]] == ["fsync", "replace", "fsync"]
    assert calls[-3][1] == calls[-2][1]
    assert calls[-1][1] == "store"


def test_what_a_killed_writer_was_writing_is_cut_off(path, light, open_writer):
    with open_writer() as opened:
        opened.append(light.records(0, 12))
    before = content(path)
    for name, rest in (("journal", b"12 3 0000"), ("records.bin", b"x" * 1000)):
        (path / name).write_bytes(before[name] + rest)
    (path / ".journal-abc").write_text("")
    (path / ".store-abc.json").write_text("")
    check_records(path, light, 12)
    open_writer().close()
    assert content(path) == before


def test_an_error_in_the_block_keeps_what_was_appended(path, light, open_writer):
    with suppress(ZeroDivisionError), open_writer() as opened:
        opened.append(light.records(0, 12))
        raise ZeroDivisionError
    check_records(path, light, 12)


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupt_between_any_two_lines(quick_disk, light):
    """Control-C raises KeyboardInterrupt wherever Python happens to be."""
    whole, path = quick_disk / "whole", quick_disk / "store"
    fill(whole, light)
    line, interrupted = 0, True
    counts = set()
    while interrupted:
        line += 1
        interrupted = interrupt_at(line, lambda: fill(path, light))
        if (path / "store.json").exists():
            counts.add(RecordFile(path).count)
            check_records(path, light, RecordFile(path).count)
        fill(path, light)
        assert content(path) == content(whole)
        shutil.rmtree(path)
    assert {0, 6, 12, 18, 20} <= counts


def fill(path, light):
    with RecordWriter(path, light.HEADER, light.DTYPE) as opened:
        light.write(opened, 20, 6)


def interrupt_at(number, function):
    """Run `function`, raise KeyboardInterrupt at a line of the writer; whether that line came."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename != writer.__file__:
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
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": "other"}, "teacher='other' for the store .* begun with teacher='wise'"),
        ({"outputs": [{"name": "logits", "top_k": 5}]}, r"outputs\[0\].top_k=5 .* begun with "),
        ({"outputs": []}, r"outputs=\[\] for the store"),
        ({"seed": 3}, "seed=3 for the store .* begun with seed=nothing"),
    ],
)
def test_another_header_is_refused_by_the_entry_that_differs(
    store, light, open_writer, change, message
):
    before = content(store)
    with pytest.raises(ValueError, match=message) as error:
        RecordWriter(store, {**light.HEADER, **change}, light.DTYPE)
    assert re.search("To fix it: pass what it was begun with, or write to", str(error.value))
    assert content(store) == before
    open_writer().close()


def test_a_missing_entry_of_the_header_is_named(store, light):
    with pytest.raises(ValueError, match=r"teacher=nothing .* begun with teacher='wise'"):
        RecordWriter(store, {"outputs": light.HEADER["outputs"]}, light.DTYPE)


def test_another_dtype_is_refused_by_the_field_that_differs(store, light):
    with pytest.raises(ValueError, match=r"dtype of the records\[0\]\[1\]='<f4' .*='<f2'"):
        RecordWriter(store, light.HEADER, [("values", "<f4", (3,)), ("key", "<i8")])


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        ({"digest": b"1"}, TypeError, "cannot be written as JSON.*Expected a dict of strings"),
        ({"scale": float("nan")}, TypeError, "cannot be written as JSON"),
        ({"names": "x" * (1 << 20)}, ValueError, "a header of 1048.* bytes. Expected at most"),
    ],
)
def test_headers_that_cannot_be_written(path, light, header, error, message):
    with pytest.raises(error, match=message):
        RecordWriter(path, header, light.DTYPE)
    assert not path.exists()


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        ("<f4", "without a field"),
        ([], "without a field"),
        ([("a", object)], "no number"),
        ([("a", "S5")], "no number"),
        ([("a", "V3")], "no number"),
        ([("a", "<c8")], "no number"),
        ([("a", "<M8[s]")], "no number"),
        ([("a", [("b", "<f4")])], "no number"),
        ([("a", "<f4", (0,))], "of shape"),
        (np.dtype([("a", "u1"), ("b", "<f8")], align=True), "gaps"),
    ],
)
def test_records_of_something_else_than_numbers_are_refused(path, dtype, reason):
    with pytest.raises(ValueError, match=rf"records of dtype .*{reason}.*Expected a structured"):
        RecordWriter(path, {}, dtype)
    assert not path.exists()


def test_records_of_another_dtype_or_rank_are_refused(light, open_writer):
    with open_writer() as opened:
        with pytest.raises(ValueError, match=r"records of dtype float32 .*Expected dtype"):
            opened.append(np.zeros(3, "float32"))
        with pytest.raises(ValueError, match=r"shape \(1, 4\)\. Expected dtype .* shape \(n,\)"):
            opened.append(light.records(0, 4)[None])


def test_records_that_are_not_contiguous(path, light, open_writer):
    with open_writer() as opened:
        opened.append(np.repeat(light.records(0, 6), 2)[::2])
    check_records(path, light, 6)


def test_a_closed_writer_says_so(light, open_writer):
    with open_writer() as opened:
        pass
    with pytest.raises(ValueError, match=r"whose writer is closed.*append inside its with block"):
        opened.append(light.records(0, 1))


def test_two_writers_in_one_process(path, light, open_writer):
    with open_writer() as opened:
        opened.append(light.records(0, 5))
        with pytest.raises(BlockingIOError, match=r"another writer has open.*one writer at a time"):
            open_writer()
        opened.append(light.records(5, 5))
    check_records(path, light, 10)
    open_writer().close()


def test_two_writers_in_two_processes(path, open_writer, start):
    other = start("hold", path)
    assert other.stdout.readline() == "ready\n", other.communicate()[1]
    with pytest.raises(BlockingIOError, match=r"another writer has open"):
        open_writer()
    other.kill()
    other.wait()
    with open_writer() as opened:
        assert opened.count == 0


def test_a_disk_that_is_full(path, light, run):
    size = light.DTYPE.itemsize
    first, second, last = run("fill", path)
    assert first["count"] == 50_000 // size // 100 * 100
    assert (first["errno"], last["error"]) == (errno.EFBIG, None)
    assert f"valid up to record {first['count']}" in first["error"]
    missing = (10_000 - first["count"]) * size
    assert f"Expected {missing} more bytes for it. To fix it: free space" in first["error"]
    assert second["count"] > first["count"]
    assert "Expected more space for it" in second["error"]
    assert last["count"] == 10_000
    check_records(path, light, 10_000)
    assert RecordFile(path).complete


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system, and not everywhere")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.usefixtures("small_chunks")
def test_a_file_system_that_is_full(full_disk, light):
    path = full_disk / "store"
    with pytest.raises(OSError, match=r"'No space left on device' while writing") as error:
        RecordWriter(path, light.HEADER, light.DTYPE).append(light.records(0, 10_000))
    assert error.value.errno == errno.ENOSPC
    count = int(re.search(r"valid up to record (\d+)\.", str(error.value))[1])
    assert count > 1000
    check_records(path, light, count)
    with RecordWriter(path, light.HEADER, light.DTYPE) as opened:
        assert opened.count == count


def test_a_directory_that_cannot_be_written(run):
    # Root may write anywhere: the program becomes somebody else, who must be able to come here.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o555)
        name, message = run("forbid", Path(directory, "store"))
    assert name == "PermissionError"
    assert "where nothing can be written" in message


def test_a_path_that_is_a_file(path, open_writer):
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"is a file"):
        open_writer()
    assert path.read_text() == "mine"


def test_a_directory_that_does_not_exist(tmp_path, light):
    with pytest.raises(FileNotFoundError, match=r"mkdir -p"):
        RecordWriter(tmp_path / "missing" / "store", light.HEADER, light.DTYPE)


def test_a_directory_that_holds_something_else(path, open_writer):
    path.mkdir()
    (path / "journal").write_text("Dear diary")
    with pytest.raises(ValueError, match=r"holds 'journal' and no store.json. Expected an empty"):
        open_writer()
    assert content(path) == {"journal": b"Dear diary"}


def test_an_empty_directory_will_do(path, light, open_writer):
    path.mkdir()
    with open_writer() as opened:
        light.write(opened, 3)
    check_records(path, light, 3)


@pytest.mark.parametrize("name", ["journal", "records.bin"])
def test_a_store_that_has_lost_a_file_is_not_begun_again(store, open_writer, name):
    (store / name).unlink()
    before = content(store)
    with pytest.raises(FileNotFoundError, match=f"without the file {name}"):
        open_writer()
    assert content(store) == before


def test_a_store_that_has_lost_its_header_is_not_begun_again(store, open_writer):
    (store / "store.json").unlink()
    with pytest.raises(ValueError, match=r"holds 'journal' and no store.json"):
        open_writer()


@pytest.mark.parametrize("name", ["journal", "records.bin", "store.json"])
def test_a_damaged_store_is_not_gone_on_with(store, open_writer, name):
    file = store / name
    file.write_bytes(file.read_bytes()[: 10 if name == "records.bin" else None].replace(b"0", b"O"))
    before = content(store)
    with pytest.raises(ValueError, match=f"{name}'.*Expected"):
        open_writer()
    assert content(store) == before


def test_a_damaged_journal_can_be_cut_as_the_message_says(store, light, open_writer):
    before = content(store)
    journal = store / "journal"
    journal.write_bytes(before["journal"].replace(b"\n21 7", b"\n21 8"))
    with pytest.raises(ValueError, match=r"line 4 is damaged; 21 records are whole") as error:
        open_writer()
    os.truncate(journal, int(re.search(r"cut it to its first (\d+) bytes", str(error.value))[1]))
    with open_writer() as opened:
        assert opened.count == 21
        light.write(opened, 40)
    assert content(store) == before


def test_a_header_of_types_that_json_does_not_keep(path, light):
    """Tuples come back as lists; that is no other header."""
    for _ in range(2):
        RecordWriter(path, {"shape": (3, 4)}, light.DTYPE).close()
    assert RecordFile(path).header == {"shape": [3, 4]}


@pytest.mark.parametrize("name", ["journal", "records.bin", "store.json"])
@pytest.mark.parametrize("finished", [False, True])
def test_links_in_a_store_are_not_followed(path, light, open_writer, name, finished, tmp_path):
    with open_writer() as opened:
        opened.append(light.records(0, 12))
        if finished:
            opened.finish()
    victim = tmp_path / "victim"
    (path / name).rename(victim)
    before = victim.read_bytes()
    (path / name).symlink_to(victim)
    for act in (open_writer, lambda: RecordFile(path)):
        with pytest.raises(
            ValueError, match=rf"{name}', which is a symbolic link\. Expected .*copy"
        ):
            act()
    assert victim.read_bytes() == before
    (path / name).unlink()
    os.link(victim, path / name)
    # What is read is the same by any name; what is written would be written by both.
    RecordFile(path)
    if name != "store.json":
        with pytest.raises(ValueError, match=rf"{name}', which has another name"):
            open_writer()
    assert victim.read_bytes() == before


@pytest.mark.parametrize("name", ["journal", "records.bin"])
def test_links_in_a_new_store_are_not_followed(path, open_writer, name, tmp_path):
    victim = tmp_path / "victim"
    path.mkdir()
    (path / name).symlink_to(victim)
    with pytest.raises(ValueError, match="holds"):
        open_writer()
    assert not victim.exists()
    victim.touch()
    with pytest.raises(ValueError, match="which is a symbolic link"):
        open_writer()
    assert victim.read_bytes() == b""
