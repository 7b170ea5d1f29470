"""What C++ libraries write to file descriptor 2, kept from the terminal and for error messages."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


class CapturedText:
    """Text that is complete when the `with` block that made it has ended."""

    def __init__(self) -> None:
        self.text = ""

    def last_lines(self, count: int) -> str:
        """The last `count` lines that say something, joined by "; "."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return "; ".join(lines[-count:])


@contextmanager
def captured_stderr() -> Iterator[CapturedText]:
    """Collect what is written to file descriptor 2 while the block runs.

    The converter, LiteRT and TFLM write there directly, past `sys.stderr`. Standard output is left
    alone: progress bars live there.
    """
    captured = CapturedText()
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield captured
            finally:
                sys.stderr.flush()
                os.dup2(original, 2)
                file.seek(0)
                captured.text = file.read().decode(errors="replace")
    finally:
        os.close(original)
