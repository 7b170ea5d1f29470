"""A bar on the terminal for what takes longer than some seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

# Who waits longer than this wants to see that something happens.
_SECONDS_WITHOUT_NEWS = 3


class Progress:
    """Context manager: a bar that shows itself on a terminal once it is worth looking at.

    Args:
        description: what is done.
        total: how many steps there are; `None` where that is not known.
    """

    def __init__(self, description: str, total: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._bar = Bar(console=console, transient=True)
        self._task = self._bar.add_task(description, total=total)
        self._started = time.monotonic()
        self._can_show = console.is_terminal
        self._is_shown = False

    def advance(self, steps: int = 1) -> None:
        """Note that so many steps are done."""
        self.look()
        self._bar.advance(self._task, steps)

    def look(self) -> None:
        """Show the bar, if it is late enough."""
        is_late = time.monotonic() - self._started > _SECONDS_WITHOUT_NEWS
        if is_late and self._can_show and not self._is_shown:
            self._bar.start()
            self._is_shown = True

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._is_shown:
            self._bar.stop()


def with_progress(items: Sequence, description: str) -> Iterator:
    """The items, one by one; if they take more than some seconds, a bar on a terminal."""
    with Progress(description, len(items)) as progress:
        for item in items:
            progress.look()
            yield item
            progress.advance()
