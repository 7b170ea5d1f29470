"""The names of classes, and the text file that holds them."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_kd._checks import problem, three_parts

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


# The names of the 21 841 classes of ImageNet take a tenth of this.
_MOST_BYTES = 4 * 1024 * 1024


def check_class_names(names: Any) -> tuple[str, ...]:
    """Return the names as a tuple if a phone can show them.

    Raises:
        TypeError: if they are not a sequence of text.
        ValueError: if there is none, or one that is empty, that begins or ends with a space or
            that has a control character such as the end of a line in it.
    """
    fix = "pass the name of each class in the order of the outputs, for example ['cat', 'dog']"
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise problem(
            f"class_names of type {type(names).__name__}", "a list of text", fix, kind=TypeError
        )
    if not names:
        raise problem("no class names", "one for each class", fix)
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise problem(
                f"the name {name!r} of class {index}",
                "text",
                f"pass {str(name)!r}",
                kind=TypeError,
            )
        if not name or name != name.strip() or has_control_characters(name):
            raise problem(
                f"the name {name!r} of class {index}",
                "text on one line, with neither a space at its ends nor control characters",
                "give the class a name that can be shown",
            )
    return tuple(names)


def warn_of_same_names(names: Sequence[str]) -> None:
    """Warn of a name that several classes have, as "crane" in ImageNet: a bird and a machine."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            warnings.warn(
                three_parts(
                    f"the name {name!r} of the classes {seen[name]} and {index}",
                    "names that differ: a reader sees one class",
                    f"add a distinction, for example {f'{name} (2)'!r}, or leave it so",
                ),
                stacklevel=3,
            )
            return
        seen[name] = index


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Read names of classes from a text file: one on each line, in the outputs' order, in UTF-8.

    Spaces at the ends of lines and empty lines at the end of the file are left out, and so is the
    mark with which some editors begin a file.

    Args:
        path: the file, which MediaPipe and Android Studio call `labels.txt`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text, or if what is in it cannot be names of classes.
    """
    return read_entries(path, "class name", _MOST_BYTES, class_names_from_bytes)


def class_names_from_bytes(content: bytes) -> tuple[str, ...]:
    """The names in the content of a file; see `read_class_names`."""
    # Not splitlines: it also splits at characters that a name may not have.
    lines = decoded(content, "class name").rstrip().split("\n")
    return check_class_names([line.strip(" \t\r") for line in lines])
