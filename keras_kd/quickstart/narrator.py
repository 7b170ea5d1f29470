"""Telling the user what is going on while they wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Narrator:
    """Shows stages of work: as bars on a terminal, elsewhere as a line when each is done.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = None

    def __enter__(self) -> Narrator:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, description: str, steps: int) -> Iterator[None]:
        """Show the work done in the body as `steps` steps, counted by `advance`."""
        start = time.monotonic()
        self._task = self._progress.add_task(description, total=steps)
        yield
        if not self._console.is_terminal:
            self._console.print(f"{description}: {time.monotonic() - start:.0f} s", highlight=False)

    def advance(self, *_: object) -> None:
        """One more step of the current stage is done."""
        if self._task is not None:
            self._progress.advance(self._task)
