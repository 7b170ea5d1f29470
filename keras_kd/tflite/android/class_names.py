"""The names of classes, and the text file that holds them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from keras_kd._checks import problem, three_parts
from keras_kd.tflite.android.text import decoded, has_control_characters, read_entries

# The most classes known to anybody, ImageNet's 21 841, take a tenth of this.
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
                    "names that differ: who reads them sees one class",
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
