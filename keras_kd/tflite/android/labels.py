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


def check_labels(labels: Any) -> tuple[str, ...]:
    """Return the labels as a tuple if a phone can show them.

    Raises:
        TypeError: if they are not a sequence of text.
        ValueError: if there is none, or one that is empty, that begins or ends with a space or
            that has a control character such as the end of a line in it.
    """
    fix = "pass the name of each class in the order of the outputs, for example ['cat', 'dog']"
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise problem(
            f"labels of type {type(labels).__name__}", "a list of class names", fix, kind=TypeError
        )
    if not labels:
        raise problem("no labels", "one for each class", fix)
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise problem(
                f"the label {label!r} of class {index}",
                "text",
                f"pass {str(label)!r}",
                kind=TypeError,
            )
        if not label or label != label.strip() or has_control_characters(label):
            raise problem(
                f"the label {label!r} of class {index}",
                "text on one line, with neither a space at its ends nor control characters",
                "give the class a name that can be shown",
            )
    return tuple(labels)


def warn_of_same_labels(labels: Sequence[str]) -> None:
    """Name a label that several classes have, as "crane" in ImageNet: a bird and a machine."""
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):
        if label in seen:
            warnings.warn(
                three_parts(
                    f"the label {label!r} of the classes {seen[label]} and {index}",
                    "labels that differ: who reads them sees one class",
                    f"add a distinction, for example {f'{label} (2)'!r}, or leave it so",
                ),
                stacklevel=3,
            )
            return
        seen[label] = index


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
    """Read labels from a text file: one on each line, in the order of the outputs, in UTF-8.

    Spaces at the ends of lines and empty lines at the end of the file are left out, and so is the
    mark with which some editors begin a file.

    Args:
        path: the file, usually called `labels.txt`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text, or if what is in it cannot be labels.
    """
    return read_entries(path, "label", _MOST_BYTES, labels_from_bytes)


def labels_from_bytes(content: bytes) -> tuple[str, ...]:
    """The labels in the content of a file; see `read_labels`."""
    # Not splitlines: it also splits at characters that a label may not have.
    lines = decoded(content, "label").rstrip().split("\n")
    return check_labels([line.strip(" \t\r") for line in lines])
