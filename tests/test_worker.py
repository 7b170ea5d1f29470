import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from keras_kd import _worker
from keras_kd._worker import Worker, WorkerError

MODULE = """
import os, sys, time
import numpy as np

def double(array): return 2 * array
def process(): return os.getpid()
def modules(): return sorted(sys.modules)
def fail(kind): raise kind("two\\n words")
def unpicklable(): return lambda: 1
def end(code): os._exit(code)
def signal(number):
    os.write(2, b"INFO: nothing\\nF0000 check failed: size < 5\\n")
    os.kill(os.getpid(), number)
def sleep(seconds): time.sleep(seconds)
def stuck(): import re; re.match("(a*)*b", "a" * 100)
def shout():
    print("words" * 100_000, flush=True)
    os.write(2, b"words" * 100_000)
    return 1
def fill():
    kept = []
    while True: kept.append(bytearray(b"x") * 2**24)
def renewed():
    from keras_kd._limits import renew
    for _ in range(10):
        renew(); time.sleep(0.1)
    return 1
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    directory = tmp_path_factory.mktemp("module")
    (directory / "functions.py").write_text(MODULE)
    sys.path.insert(0, str(directory))
    with Worker("functions") as worker:
        yield worker
    sys.path.remove(str(directory))


def call(worker, function, *arguments, seconds=60):
    return worker.call(function, *arguments, seconds=seconds)


def test_arrays_go_and_come_and_the_process_stays(worker):
    array = np.arange(300_000.0)
    np.testing.assert_array_equal(call(worker, "double", array), 2 * array)
    child = call(worker, "process")
    assert child != os.getpid()
    assert call(worker, "process") == child
    assert call(worker, "shout") == 1


def test_neither_keras_nor_tensorflow_is_there(worker):
    modules = call(worker, "modules")
    assert "keras_kd" in modules
    assert not {"keras", "tensorflow", "tf_keras"} & set(modules)


@pytest.mark.parametrize("kind", [ValueError, TypeError, ImportError, MemoryError])
def test_errors_come_as_they_are(worker, kind):
    child = call(worker, "process")
    with pytest.raises(kind, match=r"^two words$"):
        call(worker, "fail", kind)
    assert call(worker, "process") == child


def test_other_errors_come_with_their_names(worker):
    with pytest.raises(RuntimeError, match=r"^KeyError: 'two\\n words'$"):
        call(worker, "fail", KeyError)
    with pytest.raises(RuntimeError, match=r"^AttributeError: module 'functions' has no"):
        call(worker, "nothing")
    with pytest.raises(RuntimeError, match=r"pickle"):
        call(worker, "unpicklable")


@pytest.mark.parametrize(
    ("number", "name"), [(11, "SIGSEGV"), (6, "SIGABRT"), (9, "SIGKILL"), (8, "SIGFPE")]
)
def test_a_crash_is_an_error_with_what_was_said_and_the_next_call_works(worker, number, name):
    reason = rf"ended by signal {number} \({name}\): F0000 check failed: size < 5$"
    with pytest.raises(WorkerError, match=reason):
        call(worker, "signal", number)
    assert call(worker, "double", 2) == 4


def test_an_exit_is_an_error(worker):
    with pytest.raises(WorkerError, match="exit code 3"):
        call(worker, "end", 3)


@pytest.mark.parametrize(("function", "arguments"), [("sleep", (60,)), ("stuck", ())])
def test_what_never_ends_is_ended(worker, function, arguments):
    with pytest.raises(WorkerError, match=r"took over 0.2 seconds, of which KERAS_KD_SECONDS"):
        call(worker, function, *arguments, seconds=0.2)
    assert call(worker, "double", 2) == 4


def test_time_can_begin_again(worker):
    assert call(worker, "renewed", seconds=0.5) == 1


def test_the_user_sets_the_time(worker, monkeypatch):
    monkeypatch.setenv("KERAS_KD_SECONDS", "0.1")
    with pytest.raises(WorkerError, match=r"took over 0.1 seconds"):
        call(worker, "sleep", 60)


def test_memory_is_limited(worker, monkeypatch):
    monkeypatch.setenv("KERAS_KD_MEGABYTES", "300")
    worker.close()
    with pytest.raises(WorkerError, match=r"took more than 315 MB of memory, of which KERAS_KD_M"):
        call(worker, "fill")
    worker.close()


def test_one_that_has_died_meanwhile_is_replaced(worker):
    child = call(worker, "process")
    os.kill(child, signal.SIGKILL)
    worker._child.process.wait()
    assert call(worker, "process") != child


def test_an_interrupted_call_ends_the_child(worker, monkeypatch):
    child = call(worker, "process")

    def interrupt(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_worker._Child, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            call(worker, "sleep", 60)
    assert not os.path.exists(f"/proc/{child}")
    assert call(worker, "double", 2) == 4


PARENT = """
import os, sys
sys.path.insert(0, {path!r})
sys.argv[0] = "keras-kd"
from keras_kd._worker import Worker
worker = Worker("functions")
print(worker.call("process", seconds=60), flush=True)
{rest}
"""


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "os._exit(1)",
        "os.kill(os.getpid(), 9)",
        "import threading, time\n"
        "threading.Thread(target=worker.call, args=('stuck',), kwargs={'seconds': 1}).start()\n"
        "time.sleep(0.3)\nos.kill(os.getpid(), 9)",
    ],
    ids=["end", "exit", "kill", "kill in a call"],
)
def test_the_child_ends_with_its_parent(worker, rest):
    call(worker, "process")
    code = PARENT.format(path=sys.path[0], rest=rest)
    process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    child = int(process.stdout)
    for _ in range(3000):
        # Nobody may be there to take note of its end.
        if not _worker.held_bytes(child):
            return
        time.sleep(0.01)
    raise AssertionError("the child lives on")


def test_no_core_is_written_and_nothing_is_left(worker):
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(WorkerError):
            call(worker, "signal", signal.SIGSEGV)
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_fork_while_another_thread_waits(worker):
    """The lock that the thread holds is copied, and nobody gives it back in the new process."""
    thread = threading.Thread(target=lambda: worker.call("sleep", 1.0, seconds=60))
    thread.start()
    while not worker._lock.locked():
        time.sleep(0.01)
    with warnings.catch_warnings():
        # Python warns of forks beside threads: this is one.
        warnings.simplefilter("ignore")
        forked = os.fork()
    if forked == 0:
        signal.alarm(30)
        os._exit(0 if worker.call("double", 2, seconds=20) == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    thread.join()
