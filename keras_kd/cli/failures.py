"""From an exception to the one line that a person reads."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from keras_kd._checks import one_line, three_parts
from keras_kd.cli.words import in_options

DEBUG = "KERAS_KD_DEBUG"

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")
# What TensorFlow and Keras put around the reason: where in their code it came up.
_PLACES = re.compile(
    r"\{\{[^}]*\}\}|\[\[.*?\]\]|\[Op:\w+\]( name:.*)?|^\s*File \".*|^\s*<stack traces unavailable>"
    r"|^Graph execution error:|^Detected at node.*|^Exception encountered when calling .*"
    r"|\d+ successful operations\.|\d+ derived errors ignored\.|\x1b\[\d*m",
    re.MULTILINE,
)
_ARGUMENTS = re.compile(r"Arguments received by .*", re.DOTALL)
_OUT_OF_VOCABULARY = re.compile(r"indices\[[\d,]*\] = (-?\d+) is not in \[0, (\d+)\)")
_LONGEST = 300
# What who only distills, on JAX or PyTorch, may have left out.
_INSTALLED_WITH = {
    "ai_edge_litert",
    "flatbuffers",
    "tensorflow",
    "tensorflow_model_optimization",
    "tf_keras",
}
_MOST_FILES = 4


def message_of(error: BaseException, arguments: argparse.Namespace | None) -> str:
    """What went wrong, in one line.

    Args:
        error: what was raised.
        arguments: those of the command, for the names of its files.
    """
    files = _files(arguments)
    is_full = _is_full_disk(error)
    # What fails for lack of space may be reported as a mistake of the model.
    if _is_own(error) and not (is_full and "free space" not in str(error)):
        return in_options(one_line(error), arguments)
    if is_full:
        return three_parts(
            f"a disk that is full while {_written(error, arguments)} was written",
            "free space for the result, and for what is written meanwhile to "
            f"{tempfile.gettempdir()!r}",
            "free space and run the command again",
        )
    if isinstance(error, ModuleNotFoundError) and error.name in _INSTALLED_WITH:
        return three_parts(
            f"an environment without {error.name!r}, which this command needs",
            "all that keras-kd asks for",
            "pip install keras-kd, without --no-deps",
        )
    if isinstance(error, MemoryError):
        return three_parts(
            f"{files}, for which the memory is not enough"
            f"{f' ({one_line(error)[:_LONGEST]})' if str(error) else ''}",
            "a model and data that fit into the memory",
            "make them smaller, or free memory",
        )
    if _is_of_tensorflow(error):
        return _of_tensorflow(error, files)
    if isinstance(error, OSError) and error.filename is None:
        return three_parts(
            f"{files}, which cannot be read or written ({one_line(error)[:_LONGEST]})",
            "files and directories that can be",
            "check them and the disk, and run the command again",
        )
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return one_line(error) or type(error).__name__
    reason = ": ".join(part for part in (type(error).__name__, _reason(error)) if part)
    return three_parts(
        f"{files}, on which this command fails ({reason})",
        "undamaged models, and data that fit them",
        f"check them; {DEBUG}=1 in the environment shows where it fails, for a report of a mistake "
        "in keras-kd",
    )


def _is_own(error: BaseException) -> bool:
    """Whether this package has written the message."""
    return "Received " in str(error) and " To fix it: " in str(error)


def _is_full_disk(error: BaseException) -> bool:
    return any(
        getattr(each, "errno", None) in _FULL or any(text in str(each) for text in _FULL_TEXTS)
        for each in _chain(error)
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _written(error: BaseException, arguments: argparse.Namespace | None) -> str:
    named = list(filter(None, (getattr(each, "filename", None) for each in _chain(error))))
    return repr(str(named[0] if named else getattr(arguments, "output", None) or "the result"))


def _is_of_tensorflow(error: BaseException) -> bool:
    # Who has not imported TensorFlow has no error of it.
    errors = sys.modules.get("tensorflow.python.framework.errors_impl")
    return errors is not None and isinstance(error, errors.OpError)


def _of_tensorflow(error: BaseException, files: str) -> str:
    reason = _reason(error)
    outside = _OUT_OF_VOCABULARY.search(reason)
    if outside:
        value, size = outside.groups()
        return three_parts(
            f"{files}, with the number {value} for a layer that knows 0 to {int(size) - 1}, such "
            f"as an Embedding ({reason})",
            f"words or categories from 0 to {int(size) - 1}",
            "number them as for the training of the model, or pass the data that belong to it",
        )
    return three_parts(
        f"{files}, on which TensorFlow fails ({type(error).__name__}: {reason})",
        "a model that TensorFlow can run on these data",
        "check that the data are those of the model, or save the model again",
    )


def _reason(error: BaseException) -> str:
    text = _ARGUMENTS.sub("", str(getattr(error, "message", None) or error))
    return one_line(_PLACES.sub("", text))[:_LONGEST].rstrip(". ")


def _files(arguments: argparse.Namespace | None) -> str:
    """The files and directories that the command was given, models before data."""
    given: list[Any] = []
    for name, value in vars(arguments or argparse.Namespace()).items():
        if name != "output":
            given += value if isinstance(value, list) else [value]
    paths = dict.fromkeys(str(each) for each in given if isinstance(each, str | Path))
    there = [path for path in paths if os.path.lexists(path)]
    shown = ", ".join(map(repr, there[:_MOST_FILES]))
    return (f"{shown} and others" if len(there) > _MOST_FILES else shown) or "what was given"
