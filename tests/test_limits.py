import os
import signal
import subprocess
import sys
import time

import pytest

from keras_kd import _limits

GIGABYTE = 2**30


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that makes up what Linux says of its memory."""
    monkeypatch.delenv(_limits.MEGABYTES, raising=False)

    def make(meminfo="MemAvailable: 8388608 kB\nSwapFree: 0 kB\n", cgroup="0::/\n", **groups):
        (tmp_path / "meminfo").write_text(meminfo)
        (tmp_path / "cgroup").write_text(cgroup)
        for name, text in groups.items():
            path = tmp_path / "groups" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(_limits, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(_limits, "_CGROUP", tmp_path / "cgroup")
        monkeypatch.setattr(_limits, "_CGROUPS", tmp_path / "groups")

    return make


def test_four_fifths_of_what_is_free(machine):
    machine()
    assert _limits.free_bytes() == 8 * GIGABYTE
    assert _limits.most_bytes() == pytest.approx(0.8 * 8 * GIGABYTE)


def test_a_container_leaves_less_than_its_machine(machine):
    files = {"memory_dot_max": f"{4 * GIGABYTE}\n", "memory_dot_current": f"{3 * GIGABYTE}\n"}
    machine(**files)
    assert _limits.free_bytes() == GIGABYTE
    # What the cache of files takes is given back.
    machine(**files, memory_dot_stat=f"anon 5\ninactive_file {GIGABYTE}\n")
    assert _limits.free_bytes() == 2 * GIGABYTE


def test_groups_inside_groups_and_the_first_version(machine):
    machine(
        cgroup="0::/a/b\n",
        memory_dot_max="max\n",
        a__memory_dot_max=f"{2 * GIGABYTE}",
        a__memory_dot_current=f"{GIGABYTE}",
        a__b__memory_dot_max=f"{5 * GIGABYTE}",
        a__b__memory_dot_current="0",
    )
    assert _limits.free_bytes() == GIGABYTE
    machine(
        cgroup="4:memory:/docker/x\n3:cpu:/docker/x\n",
        memory__memory_dot_limit_in_bytes=f"{3 * GIGABYTE}",
        memory__memory_dot_usage_in_bytes=f"{GIGABYTE}",
    )
    assert _limits.free_bytes() == 2 * GIGABYTE


def test_where_nothing_is_known_there_is_no_limit_and_little_is_enough(machine):
    machine(meminfo="", cgroup="")
    assert _limits.most_bytes() > 2**60
    machine(meminfo="MemAvailable: 1000 kB\n", cgroup="")
    assert _limits.most_bytes() == GIGABYTE / 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2000", 2000 * 2**20), ("0", float("inf")), ("much", 0.8 * 8 * GIGABYTE)],
)
def test_who_sets_the_memory(machine, monkeypatch, text, expected):
    machine(cgroup="")
    monkeypatch.setenv(_limits.MEGABYTES, text)
    assert _limits.most_bytes() == pytest.approx(expected)


def test_who_sets_the_time(monkeypatch):
    monkeypatch.delenv(_limits.SECONDS, raising=False)
    assert _limits.most_seconds(60) == 60
    monkeypatch.setenv(_limits.SECONDS, "7.5")
    assert _limits.most_seconds(60) == 7.5
    monkeypatch.setenv(_limits.SECONDS, "-1")
    assert _limits.most_seconds(60) == 60


def test_memory_that_a_process_holds():
    before = _limits.held_bytes(os.getpid())
    block = bytearray(os.urandom(1)) * (64 * 2**20)
    assert _limits.held_bytes(os.getpid()) >= before + 0.9 * len(block)
    assert _limits.held_bytes(2**22 + 1) == 0


def run(code):
    code = f"import sys, time; sys.argv[0] = 'keras-kd'; from keras_kd._limits import *\n{code}"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_a_limit_ends_the_process_also_in_native_code():
    # The pattern takes years, in C, without a look at signals.
    stuck = "import re; re.match('(a*)*b', 'a' * 100)"
    assert run(f"with time_limit(0.2): {stuck}") == -signal.SIGALRM


def test_limits_are_renewed_nested_and_left():
    assert run("with time_limit(0): time.sleep(0.01)") == 0
    script = """
with time_limit(0.5):
    for _ in range(8):
        renew()
        time.sleep(0.1)
time.sleep(0.6)
renew()
with time_limit(0.3):
    with time_limit(5): time.sleep(0.5)
    time.sleep(1)
"""
    assert run(script) == -signal.SIGALRM


def test_nothing_is_limited_where_nobody_watches(monkeypatch):
    monkeypatch.setenv(_limits.SECONDS, "0.01")
    assert not _limits.is_watched()
    with _limits.watched("the model 'x'", 0.01):
        time.sleep(0.05)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_is_watched_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(_limits, "_watcher", told.append)
    with _limits.watched_batch("small", 3):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 123
    assert told == ["the model 'small' while it runs on 3 examples", ""]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize(
    ("group", "files"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "1000", "a/memory.current": "300",
                     "a/memory.stat": "anon 200\ninactive_file 100\n"}),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "1000",
                         "memory/a/memory.usage_in_bytes": "300",
                         "memory/a/memory.stat": "inactive_file 5\ntotal_inactive_file 100\n"}),
        # In a container its own group is the root.
        ("0::/elsewhere", {"memory.max": "1000", "memory.current": "300",
                           "memory.stat": "inactive_file 100\n"}),
    ],
)  # fmt: skip
def test_control_groups(group, files, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup").write_text(group + "\n")
    monkeypatch.setattr(_limits, "_CGROUPS", tmp_path)
    monkeypatch.setattr(_limits, "_CGROUP", tmp_path / "cgroup")
    assert list(_limits._free_in_cgroups()) == [800]
