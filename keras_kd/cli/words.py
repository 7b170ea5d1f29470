"""Messages about Python's arguments in the words of the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

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
    """A message for who typed a command: `quantization='int8'` is `--quantization int8` there.

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
    return f"{option} {_VALUES.get(value, value) if option == '--per-tensor' else value}"


def _for_python(match: re.Match) -> str:
    """A command reads Keras 3 alone: what such a function returns is converted where it is."""
    return f"convert {match[1]} in Python, with keras_kd.tflite.convert{match[2] or ''}"
