"""Ctrl-C, repeated where Python loses it (in a `__del__` or a weakref callback)."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SECONDS_BETWEEN_LOOKS = 0.1
# So many times in a row the main thread must be found doing something else than coming to an end.
_LOOKS = 3

# The signal that means Ctrl-C to this process.
_number = signal.SIGINT


class Interruption:
    """Whether Ctrl-C was pressed while a command ran."""

    def __init__(self) -> None:
        self.was_asked_for = False
        self._is_over = threading.Event()

    def end(self) -> None:
        """Ask no more."""
        self._is_over.set()

    def on_signal(self, *_: Any) -> None:
        """Raise KeyboardInterrupt in the main thread, again and again until it gets through."""
        if not self.was_asked_for:
            self.was_asked_for = True
            threading.Thread(target=self._insist, daemon=True).start()
        raise KeyboardInterrupt

    def _insist(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        missed = 0
        while not self._is_over.wait(_SECONDS_BETWEEN_LOOKS):
            # While blocks are left by the exception, files are closed and removed: not to be
            # interrupted once more.
            missed = 0 if _ends_with_interrupt(main) else missed + 1
            if missed >= _LOOKS:
                missed = 0
                signal.pthread_kill(main, _number)


def use_signal(number: int) -> None:
    """Let another signal mean Ctrl-C to this process, which another one sends; ignore SIGINT."""
    global _number
    _number = signal.Signals(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """End the block by KeyboardInterrupt on Ctrl-C, whatever the main thread is doing in Python.

    Code in C is not interrupted: the exception comes when it returns. Where Ctrl-C means something
    else already, and in other threads than the main one, nothing changes.
    """
    interruption = Interruption()
    usual = (signal.default_int_handler, signal.SIG_DFL)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(_number) not in usual:
        yield interruption
        return
    previous, hook = signal.signal(_number, interruption.on_signal), sys.unraisablehook
    sys.unraisablehook = _but_interrupts(hook)
    try:
        yield interruption
    finally:
        interruption.end()
        sys.unraisablehook = hook
        signal.signal(_number, previous)


def _but_interrupts(hook: Any) -> Any:
    def show(unraisable: Any) -> None:
        # It comes again; the terminal need not show it.
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)

    return show


def _ends_with_interrupt(thread: int) -> bool:
    """Whether the thread handles a KeyboardInterrupt, or what came up while it did."""
    error: Any = sys._current_exceptions().get(thread)
    # Before Python 3.12 it is a tuple with the type in front.
    error = error[1] if isinstance(error, tuple) else error
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
