import errno
import os
import re
import subprocess

import pytest
from _light import light

from keras_kd._files import check_output, check_own, filling, open_own, replacing


def test_replaces_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").touch()
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file.txt").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_directory_is_not_replaced(tmp_path):
    with (
        pytest.raises(IsADirectoryError, match=r"is a directory\. Expected the path of a file"),
        replacing(tmp_path),
    ):
        pass


def test_a_free_name_and_a_directory_are_fine_and_nothing_is_made(tmp_path):
    (tmp_path / "there").mkdir()
    check_output(tmp_path / "free")
    check_output(tmp_path / "there")
    assert os.listdir(tmp_path) == ["there"]
    assert not os.listdir(tmp_path / "there")


def test_a_file_is_no_place_for_results(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_output(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_output(tmp_path / "file" / "results")


def test_a_file_or_a_free_name_is_fine_for_a_file(tmp_path):
    (tmp_path / "file").touch()
    check_output(tmp_path / "file", is_file=True)
    check_output(tmp_path / "free", is_file=True)
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(IsADirectoryError, match=r"is a directory\. Expected the path of a file"):
        check_output(tmp_path, is_file=True)
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_output(tmp_path / "file/more", is_file=True)


def test_the_directory_around_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="mkdir -p"):
        check_output(tmp_path / "missing" / "results")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="nothing can be written"):
        check_output(tmp_path / "results")


def test_files_move_when_the_body_is_done_and_others_stay(tmp_path):
    output = tmp_path / "results"
    output.mkdir()
    (output / "mine.txt").write_text("mine")
    (output / "report.html").write_text("old")
    with filling(output) as directory:
        (directory / "models").mkdir()
        (directory / "models" / "a.tflite").write_text("model")
        (directory / "report.html").write_text("new")
        assert (output / "report.html").read_text() == "old"
    assert (output / "report.html").read_text() == "new"
    assert (output / "models" / "a.tflite").read_text() == "model"
    assert (output / "mine.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["results"]
    assert sorted(os.listdir(output)) == ["mine.txt", "models", "report.html"]


def test_a_failure_writes_nothing(tmp_path):
    def fail():
        with filling(tmp_path / "results") as directory:
            (directory / "report.html").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not any(tmp_path.iterdir())


WRITING = """
import time
from keras_kd._files import filling, replacing

with replacing(place / "3_cluster.keras") as file, filling(place) as directory:
    file.write_text("half")
    (directory / "report.html").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writing(tmp_path):
    """Starts a process that writes into a directory and does not end; its temporaries follow."""
    processes = []

    def start():
        before = set(tmp_path.iterdir())
        process = subprocess.Popen(light(WRITING, tmp_path), stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process, set(tmp_path.iterdir()) - before

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_what_a_killed_process_has_left_goes(writing, tmp_path):
    living, kept = writing()
    killed, left = writing()
    # Not waited for: its number is still taken.
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    assert len(kept) == len(left) == 2
    (tmp_path / ".3_cluster-mine.keras").touch()
    mine = {tmp_path / ".3_cluster-mine.keras"}
    with replacing(tmp_path / "another.keras"):
        assert left < set(tmp_path.iterdir())
    with replacing(tmp_path / "3_cluster.keras") as file:
        file.write_text("whole")
        assert len(left & set(tmp_path.iterdir())) == 1
    with filling(tmp_path) as directory:
        (directory / "report.html").write_text("whole")
    written = {tmp_path / "another.keras", tmp_path / "3_cluster.keras", tmp_path / "report.html"}
    assert set(tmp_path.iterdir()) == kept | mine | written
    assert living.poll() is None


@pytest.mark.parametrize(
    "change",
    [
        # A process of the same number that began later.
        lambda name: re.sub(r"~\d+-\d+~", f"~{os.getpid()}-1~", name),
        lambda name: re.sub(r"~\d+-", f"~{2**22 + 1}-", name),
    ],
)
def test_numbers_of_processes_are_used_again(change, tmp_path):
    with replacing(tmp_path / "file.txt") as temporary:
        left = tmp_path / change(temporary.name)
        left.touch()
    with replacing(tmp_path / "file.txt"):
        assert not left.exists()


@pytest.mark.parametrize("host", ["0" * 8, ""])
def test_what_another_machine_may_be_writing_stays(host, tmp_path):
    with replacing(tmp_path / "file.txt") as temporary:
        name = re.sub(r"~[0-9a-f]{8}~\d+-", f"~{host}~{2**22 + 1}-", temporary.name)
        (tmp_path / name).touch()
    with replacing(tmp_path / "file.txt"):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([name, "file.txt"])


def test_a_leftover_that_is_a_link_goes_and_nothing_else(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").touch()
    with replacing(tmp_path / "file.txt") as temporary:
        left = tmp_path / re.sub(r"~\d+-", f"~{2**22 + 1}-", temporary.name)
        left.symlink_to(tmp_path / "elsewhere")
    with replacing(tmp_path / "file.txt"):
        pass
    assert not left.is_symlink()
    assert (tmp_path / "elsewhere" / "mine.txt").exists()


def test_long_names(tmp_path):
    name = "ä" * 120 + ".keras"
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("new")
        left = tmp_path / re.sub(r"~\d+-", f"~{2**22 + 1}-", temporary.name)
        left.touch()
    with replacing(tmp_path / name):
        pass
    assert os.listdir(tmp_path) == [name]


def test_links_are_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    victim = tmp_path / "elsewhere" / "mine.txt"
    victim.write_text("mine")
    output = tmp_path / "results"
    output.mkdir()
    (output / "file.txt").symlink_to(victim)
    (output / "report.html").symlink_to(victim)
    (output / "models").symlink_to(victim.parent)
    with replacing(output / "file.txt") as temporary:
        temporary.write_text("new")
    with filling(output) as directory:
        (directory / "report.html").write_text("new")
    assert victim.read_text() == "mine"
    for name in ("file.txt", "report.html"):
        assert not (output / name).is_symlink()
        assert (output / name).read_text() == "new"

    def fill():
        with filling(output) as directory:
            (directory / "models" / "deep").mkdir(parents=True)
            (directory / "another.txt").write_text("new")
            (directory / "models" / "deep" / "mine.txt").write_text("new")

    with pytest.raises(ValueError, match=r"results/models', which is a symbolic link\. Expected"):
        fill()
    assert sorted(os.listdir(output)) == ["file.txt", "models", "report.html"]
    assert os.listdir(victim.parent) == ["mine.txt"]
    # The directory itself may be one: it is the user who names it.
    (tmp_path / "link").symlink_to(output)
    with filling(tmp_path / "link") as directory:
        (directory / "report.html").write_text("newer")
    assert (output / "report.html").read_text() == "newer"


def test_files_of_a_directory_are_opened_where_they_are(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    os.close(open_own(tmp_path / "file", os.O_RDWR))
    os.link(tmp_path / "file", tmp_path / "again")
    for name in ("link", "dangling"):
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT, os.O_WRONLY | os.O_TRUNC):
            with pytest.raises(ValueError, match=f"{name}', which is a symbolic link"):
                open_own(tmp_path / name, flags)
        with pytest.raises(ValueError, match=f"{name}', which is a symbolic link"):
            check_own(tmp_path / name)
    for name in ("pipe", "directory"):
        with pytest.raises(ValueError, match="which is no regular file"):
            open_own(tmp_path / name, os.O_RDONLY)
        with pytest.raises(ValueError, match="which is no regular file"):
            check_own(tmp_path / name)
    os.close(open_own(tmp_path / "again", os.O_RDONLY))
    check_own(tmp_path / "again")
    with pytest.raises(ValueError, match=r"which has another name .*hard link"):
        open_own(tmp_path / "again", os.O_RDWR)
    with pytest.raises(ValueError, match=r"which has another name .*hard link"):
        check_own(tmp_path / "again", to_write=True)
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "missing", os.O_RDONLY)
    assert not (tmp_path / "nothing").exists()


FULL = """
import resource
import h5py, numpy as np
from keras_kd._files import filling, replacing

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, -1))
zeros = np.zeros(100_000)

def hdf5(path):
    with h5py.File(path, "w") as file:
        file["zeros"] = zeros

def fill(path):
    with filling(path.parent) as directory, replacing(directory / path.name) as inner:
        np.savez(inner, zeros)

def write(path):
    path.write_bytes(zeros.tobytes())

for name, function in {"h5": hdf5, "npz": lambda path: np.savez(path, zeros), "txt": write}.items():
    try:
        with replacing(place / f"file.{name}") as path:
            function(path)
    except OSError as error:
        print(error.errno, error)
try:
    fill(place / "inside.npz")
except OSError as error:
    print(error.errno, error)
"""


def test_a_disk_that_is_full(tmp_path):
    """Whichever library writes, the error says where and what to do; nothing is left."""
    (tmp_path / "file.h5").write_text("old")
    ending = subprocess.run(light(FULL, tmp_path), capture_output=True, text=True, check=True)
    lines = ending.stdout.splitlines()
    assert len(lines) == 4
    for name, line in zip(("/file.h5", "/file.npz", "/file.txt", ""), lines, strict=True):
        expected = (
            f"{errno.EFBIG} [Errno {errno.EFBIG}] Received 'File too large' while writing "
            f"'{tmp_path}{name}'. Expected a disk with room for it. To fix it: free space or "
            "choose another path, and run again."
        )
        assert line == expected
    assert os.listdir(tmp_path) == ["file.h5"]
    assert (tmp_path / "file.h5").read_text() == "old"
