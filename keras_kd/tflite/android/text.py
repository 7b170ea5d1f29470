"""Text that a screen can show, and the files that hold an entry on each line."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from keras_kd._checks import problem

# Control characters, halves of characters, and separators of lines and paragraphs. Characters that
# join others, which emoji and some scripts need, are not among them.
_CONTROL_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


def has_control_characters(text: str, allowed: str = "") -> bool:
    """Whether there is anything but visible characters and spaces in the text."""
    return any(
        unicodedata.category(character) in _CONTROL_CATEGORIES and character not in allowed
        for character in text
    )


def read_entries(
    path: str | os.PathLike,
    entry: str,
    most_bytes: int,
    parsed: Callable[[bytes], tuple[str, ...]],
) -> tuple[str, ...]:
    """Read a text file with an entry on each line.

    Args:
        path: the file.
        entry: what an entry is called in messages, for example "word".
        most_bytes: the largest size that such a file has.
        parsed: the entries in the bytes of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is larger, or if `parsed` raises it.
    """
    path, expected = Path(path), f"a text file with a {entry} on each line"
    if not path.is_file():
        raise problem(f"the path {str(path)!r}", expected, "check the path", kind=FileNotFoundError)
    size = path.stat().st_size
    if size > most_bytes:
        raise problem(
            f"a file {str(path)!r} of {size} bytes",
            f"{expected}, of at most {most_bytes} bytes",
            "check the path",
        )
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def decoded(content: bytes, entry: str) -> str:
    """The text in the bytes of such a file, without the mark with which some editors begin it.

    Raises:
        ValueError: if they are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem(
            f"{entry}s that are not UTF-8 (byte {error.start})",
            f"a text file with a {entry} on each line",
            "save the file as UTF-8",
        ) from error
