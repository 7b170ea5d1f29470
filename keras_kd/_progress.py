"""Progress of long operations: a bar on a terminal, elsewhere occasional lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# After this time progress is shown.
_SECONDS_WITHOUT_NEWS = 3
# In a log, the first line comes later, and each takes half as long again as the one before.
_SECONDS_WITHOUT_A_LINE = 20
_LONGER = 1.5


class Progress:
    """Context manager: how far something is, once it is worth looking at.

    On a terminal it is a bar. Elsewhere, as in logs, it is lines on standard error, fewer and fewer
    of them: "Storing teacher: 1,200 of 10,000 (12 %), 20 s".

    Args:
        description: what is done.
        total: how many steps there are; `None` where that is not known.
        console: where it is shown from the beginning, as one of several stages, which stay visible
            when they are done; `None` for standard error, where nothing stays.
    """

    def __init__(
        self, description: str, total: int | None = None, *, console: Console | None = None
    ) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._is_stage = console is not None
        self._console = console = console or Console(stderr=True)
        self._bar = Bar(console=console, transient=not self._is_stage)
        self._task = self._bar.add_task(description, total=total)
        self._description, self._total, self._done = description, total, 0
        self._started = time.monotonic()
        self._next_line = float(_SECONDS_WITHOUT_A_LINE)
        self._can_show = console.is_terminal
        self._is_shown = False

    def advance(self, steps: int = 1) -> None:
        """Note the number of finished steps."""
        self._done += steps
        self.look()
        self._bar.advance(self._task, steps)

    def look(self) -> None:
        """Show the bar or a line, if it is late enough."""
        seconds = time.monotonic() - self._started
        is_due = self._is_stage or seconds > _SECONDS_WITHOUT_NEWS
        if self._can_show and not self._is_shown and is_due:
            self._bar.start()
            self._is_shown = True
        elif not self._can_show and seconds > self._next_line:
            self._next_line = seconds * _LONGER
            self._print(self._line(seconds))

    def _print(self, line: str) -> None:
        if self._is_stage:
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        share = ""
        if self._total:
            share = f" of {self._total:,} ({100 * self._done / self._total:.0f} %)"
        return f"{self._description}: {self._done:,}{share}, {seconds:.0f} s"

    def __enter__(self) -> Progress:
        if self._is_stage:
            self.look()
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if self._is_shown:
            self._bar.stop()
        elif self._is_stage and kind is None:
            self._print(f"{self._description}: {time.monotonic() - self._started:.0f} s")


def with_progress(items: Sequence, description: str) -> Iterator:
    """The items, one by one; if they take more than some seconds, their progress."""
    with Progress(description, len(items)) as progress:
        for item in items:
            progress.look()
            yield item
            progress.advance()
