"""Capture of what native libraries write to file descriptor 2, for error messages."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# TensorFlow's marks of information and warnings, with the date or seconds: "I0000 00:00:1795 ...",
# and LiteRT's.
_CHATTER = re.compile(r"[IW]\d{4} |INFO: |WARNING: All log messages before absl")


class CapturedText:
    """Text that is complete when the `with` block that made it has ended."""

    def __init__(self) -> None:
        self.text = ""

    def last_lines(self, count: int) -> str:
        """The last `count` lines that are not empty, joined by "; "."""
        return last_lines(self.text, count)


def last_lines(text: str, count: int) -> str:
    """The last `count` lines of a text that are not empty, joined by "; "."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join([line for line in lines if not _CHATTER.match(line)][-count:])


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
