"""Files of interrupted work: whole, or an error that names them."""

import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
from _disk import without_permission
from _light import light

from keras_kd._state_files import StateFiles, directory_of, using


def test_what_was_written_is_read(tmp_path):
    files = StateFiles(tmp_path / "new", "a test")
    assert files.read_json("state.json") is None
    files.write_json("state.json", {"a": [1, None]})
    files.write_arrays("deeper/arrays.npz", {"a": np.arange(3), "b": np.float32(2.0)})
    assert files.read_json("state.json") == {"a": [1, None]}
    arrays = files.read_arrays("deeper/arrays.npz")
    assert sorted(arrays) == ["a", "b"]
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert arrays["b"].dtype == np.float32
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["arrays.npz", "state.json"]


def test_a_failed_write_leaves_the_file_before(tmp_path):
    files = StateFiles(tmp_path, "a test")
    files.write_json("state.json", 1)
    with pytest.raises(TypeError):
        files.write_json("state.json", object())
    assert files.read_json("state.json") == 1


@pytest.mark.parametrize("change", [lambda b: b[:-30], lambda b: b"", lambda b: _flipped(b)])
def test_damaged_arrays_are_an_error(tmp_path, change):
    files = StateFiles(tmp_path, "a test")
    files.write_arrays("a.npz", {"a": np.arange(1000.0)})
    path = tmp_path / "a.npz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.npz', which cannot be read.*that a test has written"):
        files.read_arrays("a.npz")


def _flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        StateFiles(tmp_path, "a test").read_arrays("a.npz")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(ValueError, match="symbolic link"):
        StateFiles(tmp_path / "run", "a test").read_json("state.json")


@pytest.mark.parametrize("way", ["no permission", "a directory"])
@pytest.mark.parametrize(
    ("name", "read"),
    [("state.json", StateFiles.read_json), ("a.npz", StateFiles.read_arrays)],
    ids=["json", "arrays"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, read, way):
    files = StateFiles(tmp_path, "a test")
    files.write_json("state.json", 1)
    files.write_arrays("a.npz", {"a": np.arange(3)})
    path = tmp_path / name
    message = f"'{name}', which cannot be read .*that a test has written"
    if way == "a directory":
        path.unlink()
        path.mkdir()
    with without_permission(path), pytest.raises(ValueError, match=message):
        read(StateFiles(".", "a test"), name)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(NotADirectoryError, match="which is a file"):
        StateFiles(tmp_path / "run", "a test")


def test_a_directory_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match=r"but '.*file' is a file.*pass another path"),
        using(tmp_path / "file" / "run", "a test"),
    ):
        pass


def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    (tmp_path / "file").touch()
    message = r"where nothing can be written \(Permission denied\).*pass another one"
    with without_permission(tmp_path / "file"):
        with pytest.raises(PermissionError, match=message):
            StateFiles("closed", "a test").check_writable()
        with pytest.raises(PermissionError, match=message), using("closed/run", "a test"):
            pass
        StateFiles("open", "a test").check_writable()
        # What is finished there can be read.
        with using("closed", "a test"):
            pass


def test_unfinished_work_of_other_settings_goes(tmp_path):
    assert directory_of(tmp_path / "new", 1).parent == tmp_path / "new"
    first = directory_of(tmp_path, {"seed": 1, "epochs": 2})
    first.mkdir()
    (tmp_path / "in_use").touch()
    assert directory_of(tmp_path, {"epochs": 2, "seed": 1}) == first
    assert first.exists()
    assert directory_of(tmp_path, {"epochs": 2, "seed": 2}) != first
    assert [path.name for path in tmp_path.iterdir()] == ["in_use"]


def test_unfinished_work_is_not_looked_for_behind_links(tmp_path):
    (tmp_path / "elsewhere" / "precious").mkdir(parents=True)
    (tmp_path / "training").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"training', which is a symbolic link.*delete the link"):
        directory_of(tmp_path / "training", 1)
    assert (tmp_path / "elsewhere" / "precious").exists()
    place = directory_of(tmp_path / "run", 1)
    place.parent.mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="which is a symbolic link"):
        directory_of(tmp_path / "run", 1)


# The second process says in what it ends; the first one works until its input ends.
WORK = """
from keras_kd._state_files import using
try:
    with using(place, "a test"):
        print("works", flush=True)
        sys.stdin.read()
except OSError as error:
    print(type(error).__name__, error, flush=True)
"""


def work(directory):
    return subprocess.Popen(
        light(WORK, directory),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("ending", ["end", "kill"])
def test_a_directory_is_for_one_process_at_a_time(tmp_path, ending):
    first = work(tmp_path / "run")
    assert first.stdout.readline() == "works\n"
    said, _ = work(tmp_path / "run").communicate()
    assert re.fullmatch(
        r"BlockingIOError Received the directory '.*run', in which a test is running\. "
        r"Expected one at a time\. To fix it: wait until .*\n",
        said,
    )
    other = work(tmp_path / "other")
    assert other.stdout.readline() == "works\n"
    other.communicate()
    if ending == "kill":
        first.kill()
    first.communicate()
    third = work(tmp_path / "run")
    assert third.stdout.readline() == "works\n"
    third.communicate()
    # A killed one leaves the directory that it has made.
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if ending == "kill" else [])
    assert not any(tmp_path.rglob("in_use"))


def test_a_directory_is_for_one_call_at_a_time(tmp_path):
    with using(tmp_path, "a test"):
        (tmp_path.parent / "link").symlink_to(tmp_path)
        for path in (tmp_path, tmp_path.parent / "link"):
            with pytest.raises(BlockingIOError, match="a test is running"), using(path, "a test"):
                pass
        said, _ = work(tmp_path).communicate()
        assert said.startswith("BlockingIOError")
    with using(tmp_path, "a test"):
        pass


def test_a_worker_of_a_killed_process_keeps_nobody_out(tmp_path):
    program = "import os, time\n" + WORK.replace(
        "sys.stdin.read()", "os.fork(); os.write(1, b'runs\\n'); time.sleep(60)"
    )
    first = subprocess.Popen(
        light(program, tmp_path),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Both run: otherwise the first one could be killed before it has a worker.
        assert [first.stdout.readline() for _ in range(3)] == ["works\n", "runs\n", "runs\n"]
        first.kill()
        first.wait()
        with using(tmp_path, "a test"):
            pass
    finally:
        # Its worker, too.
        os.killpg(first.pid, signal.SIGKILL)


def test_a_directory_that_was_removed_is_made_again(tmp_path):
    for _ in range(2):
        with using(tmp_path / "run", "a test"):
            shutil.rmtree(tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_nothing_is_locked_where_there_is_no_directory(tmp_path):
    with using(None, "a test"), using(None, "a test"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="which is a file"), using(tmp_path / "file", "it"):
        pass


def test_where_nothing_may_be_written_nothing_is_locked(tmp_path):
    program = """
import os
from keras_kd._state_files import StateFiles, using
os.mkdir(place / "run")
os.chmod(place / "run", 0o555)
os.chmod(place, 0o711)
if os.geteuid() == 0:
    # Nobody; what is above may be closed to it.
    os.chdir(place / "run")
    os.setgid(65534)
    os.setuid(65534)
with using(".", "a test"):
    print("works")
try:
    StateFiles(".", "a test").write_json("state.json", 1)
except OSError as error:
    print(type(error).__name__)
"""
    said = subprocess.run(light(program, tmp_path), capture_output=True, text=True, check=True)
    assert said.stdout == "works\nPermissionError\n"
    assert not any((tmp_path / "run").iterdir())
