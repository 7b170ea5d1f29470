"""Templates of source files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from keras_kd._checks import problem

_TYPES = {"float32": "float", "bool": "uint8_t"}
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
_FOLDER = Path(__file__).with_name("templates")
_WIDTH = 100


def fill(template: str, **values: Any) -> str:
    """The text of the template of that name, its gaps filled."""
    text = (_FOLDER / f"{template}.in").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def lines_of(values: Iterable[str], indentation: str) -> str:
    """Initializers, a comma behind each, in lines of up to 100 characters."""
    lines = []
    start = line = indentation[:-1]
    for value in values:
        if len(line) + len(value) + 2 > _WIDTH:
            lines.append(line)
            line = start
        line += f" {value},"
    return "\n".join([*lines, line])


def literal(value: Any) -> str:
    """A number in C, which reads back as the same number."""
    if isinstance(value, np.floating):
        text = f"{value:.9g}"
        return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"
    return str(int(value))


def c_type(dtype: np.dtype) -> str:
    """The type in C of what a tensor stores.

    Raises:
        ValueError: if C has none.
    """
    if dtype.name in _INTEGERS:
        return f"{dtype.name}_t"
    if dtype.name not in _TYPES:
        raise problem(
            f"an input or output of type {dtype.name}",
            f"one of {', '.join([*_TYPES, *_INTEGERS])}",
            "convert the student again, with target='microcontroller'",
        )
    return _TYPES[dtype.name]


def string_literal(text: str) -> str:
    """Text in C, as UTF-8."""
    return "".join(['"', *map(_escaped, text.encode()), '"'])


def _escaped(byte: int) -> str:
    character = chr(byte)
    # A question mark could begin a trigraph.
    if character.isascii() and character.isprintable() and character not in '"\\?':
        return character
    return f"\\{byte:03o}"
