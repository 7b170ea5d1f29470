"""From an exception to a one-line message that names options of the command line."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_kd._checks import one_line, three_parts

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
# Packages that distillation on JAX or PyTorch does not need.
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
            "all dependencies of keras-kd",
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
            "readable and writable files and directories",
            "check them and the disk, and run the command again",
        )
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return one_line(error) or type(error).__name__
    reason = ": ".join(part for part in (type(error).__name__, _reason(error)) if part)
    return three_parts(
        f"{files}, on which this command fails ({reason})",
        "undamaged models, and data that fit them",
        f"check them; {DEBUG}=1 in the environment shows where it fails, for a bug report",
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
            f"{files}, with the number {value} for a layer that takes 0 to {int(size) - 1}, such "
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


# Python's way to name data, and a file of the same.
_DATA = re.compile(r"\b(x|y)_(train|test)\b(?!\.npy)(\[[^\]]*\])?")
_IN_PYTHON = re.compile(
    r"(?:pass|convert) (keras_kd\.compression\.\w+\(student\))(, or (?=replace|build|choose))?"
)
# By pattern: the replacement.
_PHRASES = (
    (
        r"(?:pass|convert) keras_kd\.tflite\.android\.with_color_input\(student\)",
        "add --color-input",
    ),
    (r"(?:pass|convert) keras_kd\.tflite\.android\.with_softmax\(student\)", "add --softmax"),
    (r"keras_kd\.tflite\.android\.with_color_input\(student\)", "--color-input"),
    (r"keras_kd\.tflite\.android\.with_softmax\(student\)", "--softmax"),
    (
        r"mean and std of keras_kd\.tflite\.android\.normalization\(low, high\)",
        "--input-range LOW HIGH",
    ),
    (
        r"pass student=build, a function of keras_tuner\.HyperParameters( that returns a model)?",
        "in Python, call keras_kd.fit_to_device with student=build, a function of "
        "keras_tuner.HyperParameters that returns a model",
    ),
    (
        r"pass loss=(keras\.losses\.\w+\(\)), for example",
        r"in Python, call keras_kd.fit_to_device with loss=\1, for example",
    ),
    (
        r"pass (keras\.Model\(teacher\.inputs, teacher\.outputs\[0\]\))",
        r"save \1 in Python and pass its file",
    ),
    (r"keras_kd\.tflite\.android\.add_metadata", "keras-kd convert --class-names"),
    (r"keras_kd\.tflite\.convert\b(?!\()", "keras-kd convert"),
)
# Where the option has another name than Python's argument.
_OPTIONS = {
    "fit": {"validation_data": "--validation"},
    "convert": {"y": "--verification-labels", "temperatures": "--temperature"},
    "store": {"temperatures": "--temperature", "activation": "--probabilities", "x": "--data"},
}
_VALUE = (
    r"=(?:\((?P<pair>[^()]*)\)|\'(?P<single>[^\']*)\'"
    r'|"(?P<double>[^"]*)"|(?P<word>[\w.+-]+))'
)
_VALUES = {"True": "all", "False": "none"}


def in_options(message: str, arguments: argparse.Namespace | None) -> str:
    """A message in the words of the command line: `quantization='int8'` as `--quantization int8`.

    Args:
        message: one of this package's, in three parts.
        arguments: those of the command.
    """
    for pattern, phrase in _PHRASES:
        message = re.sub(pattern, phrase, message)
    message = _IN_PYTHON.sub(_for_python, message)
    for name, option in _names(arguments):
        message = re.sub(rf"(?<![\w.-]){name}{_VALUE}", lambda m, o=option: _given(m, o), message)
        message = re.sub(rf"(?<=leave out ){name}\b|(?<=leave ){name}(?= out\b)", option, message)
        if "_" in name:
            message = re.sub(rf"(?<![\w.-]){name}\b(?!\()", option, message)
    return _DATA.sub(r"\1_\2.npy", message)


def _names(arguments: argparse.Namespace | None) -> Iterator[tuple[str, str]]:
    """Python's names for what the command has options for, and these options."""
    given = vars(arguments or argparse.Namespace())
    others = _OPTIONS.get(given.get("command", ""), {})
    yield from others.items()
    for name in given:
        if name not in ("run", "command", *others):
            yield name, f"--{name.replace('_', '-')}"


def _given(match: re.Match, option: str) -> str:
    if match["pair"] is not None:
        return f"{option} {match['pair'].replace(',', '')}"
    value = next(each for each in match.group("single", "double", "word") if each is not None)
    # A text of several words is one word for a shell.
    value = f'"{value}"' if " " in value else value
    if option == "--per-tensor":
        return f"{option} {_VALUES.get(value, value)}"
    # A switch has no value.
    return option if value == "True" else f"{option} {value}"


def _for_python(match: re.Match) -> str:
    """A command reads Keras 3 alone: what such a function returns is converted where it is."""
    return f"convert {match[1]} in Python, with keras_kd.tflite.convert{match[2] or ''}"
