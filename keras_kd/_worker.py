"""Functions in a child process, whose crash, hang or memory use ends only that process."""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from multiprocessing.connection import Connection
from typing import Any

from keras_kd._checks import one_line
from keras_kd._limits import (
    MEGABYTES,
    SECONDS,
    held_bytes,
    most_bytes,
    most_seconds,
    signal_name,
    time_limit,
)
from keras_kd._native import last_lines

# The child finds modules where this process does, and sees itself as a command, so that importing
# keras_kd loads neither Keras nor TensorFlow.
_START = (
    "import sys; sys.path[:] = {path!r}; sys.argv[:] = ['keras-kd']; "
    "from keras_kd._worker import serve; serve({module!r})"
)
# How often the memory of a child that computes is looked at.
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_END = 5
_RAISED_AS_IT_IS = {
    error.__name__: error
    for error in (ValueError, TypeError, ImportError, ModuleNotFoundError, MemoryError, OSError)
}


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _begin_after_fork() -> None:
    # Another thread may have held a lock, which is never released here; the child is its parent's.
    for worker in list(_workers):
        worker._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_after_fork)


class WorkerError(Exception):
    """A child that ended instead of returning; its text is the reason, a clause."""


class Worker:
    """A child process that runs the functions of one module; a new one where it has ended.

    It starts with the first call, and ends with this process or this object. It may take four
    fifths of the memory that is free then (`_limits.most_bytes`).

    Args:
        module: the name of a module whose functions are called. What they take and return is
            pickled.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._begin()
        _workers.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def call(self, function: str, *arguments: Any, seconds: float) -> Any:
        """Run a function of the module in the child and return what it returns.

        Args:
            function: its name.
            arguments: what it takes.
            seconds: how long it may take, or from one `_limits.renew()` to the next.

        Raises:
            WorkerError: if the child has ended: by a crash, by a limit.
            Exception: what the function raises; types that are not Python's own as RuntimeError.
        """
        with self._lock:
            child = self._running_child()
            try:
                child.requests.send((function, arguments, most_seconds(seconds)))
                child.wait()
                returned, *answer = child.replies.recv()
            except (EOFError, ConnectionError, BrokenPipeError):
                self._child = None
                raise WorkerError(child.end_reason(most_seconds(seconds))) from None
            except BaseException:
                # Nothing waits for its result any more.
                self._end()
                raise
        if returned:
            return answer[0]
        name, text = answer
        if name in _RAISED_AS_IT_IS:
            raise _RAISED_AS_IT_IS[name](text)
        raise RuntimeError(f"{name}: {text}")

    def close(self) -> None:
        """End the child, if there is one."""
        with self._lock:
            self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _running_child(self) -> _Child:
        child = self._child
        # After a fork the child is that of another process.
        if child is None or child.owner != os.getpid() or child.process.poll() is not None:
            self._child = child = _Child(self._module)
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.owner == os.getpid():
            child.end()


class _Child:
    """One process and the pipes to it."""

    def __init__(self, module: str) -> None:
        self.owner = os.getpid()
        self._most_bytes = most_bytes()
        self._is_too_large = False
        # In append mode, because both ends write and empty it.
        self._messages = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path, module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
        )
        written, read = self.process.stdin, self.process.stdout
        assert written is not None
        assert read is not None
        self.requests = Connection(os.dup(written.fileno()), readable=False)
        self.replies = Connection(os.dup(read.fileno()), writable=False)
        written.close()
        read.close()
        # At the end of this process too, where objects are not always freed.
        files = self.requests, self.replies, self._messages
        self.end = weakref.finalize(self, _end_process, self.process, files, self.owner)

    def wait(self) -> None:
        """Return when there is an answer or an end; end it if it takes too much memory."""
        while not self.replies.poll(_SECONDS_BETWEEN_LOOKS):
            if self.process.poll() is not None and not self.replies.poll():
                # A process that another thread forked meanwhile can hold the pipe open.
                raise EOFError
            if held_bytes(self.process.pid) > self._most_bytes:
                self._is_too_large = True
                self.process.kill()

    def end_reason(self, seconds: float) -> str:
        """Why the process has ended, a clause."""
        try:
            code = self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._messages.seek(0)
        message = last_lines(self._messages.read().decode(errors="replace"), 1)[-300:]
        self.end()
        if self._is_too_large:
            return (
                f"it took more than {self._most_bytes / 1e6:.0f} MB of memory, of which "
                f"{MEGABYTES} allows more"
            )
        if code == -signal.SIGALRM:
            return f"it took over {seconds:g} seconds, of which {SECONDS} allows more"
        ending = signal_name(-code) if code < 0 else f"exit code {code}"
        return f"its process was ended by {ending}{message and f': {message}'}"


def _end_process(process: subprocess.Popen, files: tuple[Any, ...], owner: int) -> None:
    for file in files:
        file.close()
    if owner == os.getpid():
        process.kill()
        process.wait()


def serve(module: str) -> None:
    """Answer requests until the pipe is closed; the main function of the child."""
    requests = Connection(os.dup(0), writable=False)
    replies = Connection(os.dup(1), readable=False)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    # What native code prints is not for whoever reads the answers.
    os.dup2(2, 1)
    # Ctrl-C goes to all processes of a terminal; the one that waits ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            function, arguments, seconds = requests.recv()
        except EOFError:
            # There is nothing to save, and libraries may take long to shut down.
            os._exit(0)
        os.ftruncate(2, 0)
        # If the other process has ended, nothing else ends this one.
        with time_limit(seconds):
            reply = _reply(module, function, arguments)
        try:
            replies.send_bytes(reply)
        except OSError:
            os._exit(0)


def _reply(module: str, function: str, arguments: tuple) -> bytes:
    """What the function returns or raises, pickled."""
    try:
        returned = getattr(importlib.import_module(module), function)(*arguments)
        return pickle.dumps((True, returned), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        return pickle.dumps((False, type(error).__name__, one_line(error)))
