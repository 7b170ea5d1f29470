"""Real signals to real processes; nothing but Python is in them, so that many can be tried."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_kd.cli import interruption
from keras_kd.cli.interruption import interruptible

# In `__del__` and in callbacks of weakrefs Python drops exceptions; so may a library.
PLACES = {
    "plain": "while True: pass",
    "asleep": "time.sleep(60)",
    "in __del__": """
class Slow:
    def __del__(self):
        while time.monotonic() < over: pass
while True:
    Slow()
    while time.monotonic() > over: pass
""",
    "in a callback": """
class Thing: pass
def slow(_):
    while time.monotonic() < over: pass
thing = Thing()
reference = weakref.ref(thing, slow)
del thing
while True: pass
""",
    "swallowed": """
while True:
    try:
        while time.monotonic() < over: pass
        time.sleep(60)
    except BaseException:
        pass
    finally:
        over = 0
    while True: pass
""",
    "in native code": "import re; [re.match('(a*)*b', 'a' * 18) for _ in range(10_000)]",
}
PROGRAM = """
import signal, sys, time, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "keras-kd"
from keras_kd.cli import interruption
from keras_kd.cli.interruption import interruptible
over = time.monotonic() + {seconds}
try:
    with interruptible() as asked:
        print("ready", flush=True)
        exec({place!r})
except KeyboardInterrupt:
    print("interrupted", asked.was_asked_for, flush=True)
"""


def interrupted(place, after, seconds=0.4):
    """What a process writes that gets one SIGINT."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(place=PLACES[place], seconds=seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


@pytest.mark.parametrize("place", PLACES)
def test_one_press_is_enough(place):
    assert interrupted(place, 0.1) == ("interrupted True\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_one_press_is_enough_at_any_moment(place):
    for moment in range(30):
        assert interrupted(place, 0.02 * moment) == ("interrupted True\n", "")


def test_what_is_cleaned_up_is_not_interrupted_again():
    place = """
import contextlib
@contextlib.contextmanager
def opened():
    try:
        yield
    finally:
        try:
            raise OSError
        except OSError:
            time.sleep(1)
        time.sleep(0.5)
        print("cleaned", flush=True)
with opened():
    while True: pass
"""
    PLACES["cleaned up"] = place
    try:
        assert interrupted("cleaned up", 0.1) == ("cleaned\ninterrupted True\n", "")
    finally:
        del PLACES["cleaned up"]


def test_handlers_come_back(monkeypatch):
    before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    with interruptible() as asked:
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) is before
    assert sys.unraisablehook is hook
    assert not asked.was_asked_for


def test_the_handler_of_somebody_else_stays(monkeypatch):
    def own(*_):
        raise AssertionError

    before = signal.signal(signal.SIGINT, own)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_signals():
    seen = []

    def command():
        with interruptible() as asked:
            seen.append(asked.was_asked_for)

    thread = threading.Thread(target=command)
    thread.start()
    thread.join()
    assert seen == [False]


def test_another_signal_can_mean_it(monkeypatch):
    monkeypatch.setattr(interruption, "_number", signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGUSR1)
