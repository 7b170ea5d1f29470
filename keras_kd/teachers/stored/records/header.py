"""What the records of a store are: a JSON file that is checked and not believed."""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._files import open_own, replacing

HEADER = "store.json"
_FORMAT = "keras_kd store"
_VERSION = 1
# Far more than a header needs, and little enough to read before anything is known of it.
_MOST_BYTES = 1 << 20
# NumPy keeps the size of a record in a C int.
_MOST_RECORD_BYTES = 2**31 - 1
# Numbers and nothing else: objects would be pickled.
_NUMBER = re.compile(r"[<>|][biuf][1248]")


@dataclass(frozen=True)
class Header:
    """What the records of a store are.

    Attributes:
        entries: what the writer noted, in types that JSON knows.
        dtype: the structured dtype of a record.
        checksum: CRC-32 of both.
    """

    entries: dict[str, Any]
    dtype: np.dtype
    checksum: int


def new_header(entries: dict[str, Any], dtype: np.dtype) -> Header:
    """The header of a store to be written.

    Raises:
        TypeError: if the entries are not for JSON.
        ValueError: if they are too long, or a record holds something else than numbers.
    """
    _check_dtype(dtype)
    try:
        entries = json.loads(json.dumps(entries, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            problem(
                f"a header that cannot be written as JSON ({error})",
                "a dict of strings, finite numbers, booleans, None, lists and dicts",
                "convert its values",
            )
        ) from error
    header = Header(entries, dtype, zlib.crc32(_text(_content(entries, dtype))))
    size = len(_file(header))
    if size > _MOST_BYTES:
        raise ValueError(
            problem(
                f"a header of {size} bytes",
                f"at most {_MOST_BYTES}",
                "keep what is large in the records",
            )
        )
    return header


def write_header(directory: Path, header: Header) -> None:
    """Write the header at once, as a whole."""
    with replacing(directory / HEADER) as temporary:
        temporary.write_bytes(_file(header))


def read_header(directory: Path) -> Header:
    """Read a header that can come from anywhere.

    Raises:
        ValueError: if it is damaged, of another version, or speaks of something else than numbers.
    """
    path = directory / HEADER
    with open(open_own(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        text = file.read(_MOST_BYTES)
    if size > _MOST_BYTES:
        raise _damaged(path, f"it has {size} bytes, and no header has more than {_MOST_BYTES}")
    try:
        content = json.loads(text)
        if isinstance(content, dict) and content.get("format") == _FORMAT:
            _check_version(directory, content.get("version"))
        return _checked(content)
    except _OtherVersionError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}"[:200]) from error


def check_same(directory: Path, stored: Header, given: Header) -> None:
    """Refuse to go on with a store whose header says something else.

    Raises:
        ValueError: naming the first entry that differs, with both values.
    """
    before = {**stored.entries, "dtype of the records": _dtype_to_json(stored.dtype)}
    now = {**given.entries, "dtype of the records": _dtype_to_json(given.dtype)}
    if before == now:
        return
    name, old, new = _difference(before, now, "")
    raise ValueError(
        problem(
            f"{name}={new} for the store {str(directory)!r}, which was begun with {name}={old}",
            "the same as when it was begun, to go on with it",
            "pass what it was begun with, or write to another path",
        )
    )


class _OtherVersionError(ValueError):
    """A store that is whole, for another version of this package."""


def _check_version(directory: Path, version: Any) -> None:
    if version != _VERSION:
        raise _OtherVersionError(
            problem(
                f"the store {str(directory)!r} in version {version!r:.40} of its format",
                f"version {_VERSION}",
                "read it with the version of keras_kd that wrote it, or store the outputs again",
            )
        )


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        problem(
            f"{str(path)!r}, which is damaged or no header of a store ({reason})",
            "the file as it was written",
            "restore it from a copy, or delete the directory and store the outputs again",
        )
    )


def _content(entries: dict[str, Any], dtype: np.dtype) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "dtype": _dtype_to_json(dtype),
        "header": entries,
    }


def _checked(content: Any) -> Header:
    """The header in what was read, any part of which can be anything."""
    checksum = content.pop("checksum")
    if checksum != f"{zlib.crc32(_text(content)):08x}":
        raise ValueError("its checksum is not that of its content")
    entries, dtype = content["header"], _dtype_from_json(content["dtype"])
    if content != _content(entries, dtype) or not isinstance(entries, dict):
        raise ValueError("it is not what a store says of itself")
    return Header(entries, dtype, int(checksum, 16))


def _text(content: dict[str, Any]) -> bytes:
    """The form of which the checksum is taken: the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _file(header: Header) -> bytes:
    content = {**_content(header.entries, header.dtype), "checksum": f"{header.checksum:08x}"}
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _dtype_to_json(dtype: np.dtype) -> list[list]:
    return [[name, dtype[name].base.str, list(dtype[name].shape)] for name in dtype.names or ()]


def _dtype_from_json(fields: Any) -> np.dtype:
    """The dtype of a record, whose size is known before NumPy hears of it.

    Raises:
        ValueError: if it holds something else than numbers, or is too large.
    """
    total = 0
    for name, number, shape in fields:
        if not isinstance(name, str) or not _NUMBER.fullmatch(number):
            raise ValueError(f"the field {name!r:.40} of dtype {number!r:.40}, which is no number")
        size = int(number[-1])
        for length in shape:
            if type(length) is not int or length <= 0:
                raise ValueError(f"the field {name!r:.40} of shape {shape!r:.40}")
            size *= length
            if total + size > _MOST_RECORD_BYTES:
                raise ValueError(f"records of more than {_MOST_RECORD_BYTES} bytes")
        total += size
    if total == 0:
        raise ValueError("records without a field")
    return np.dtype([(name, number, tuple(shape)) for name, number, shape in fields])


def _check_dtype(dtype: np.dtype) -> None:
    """Refuse records that would not come back from JSON as they are."""
    try:
        if _dtype_from_json(_dtype_to_json(dtype)) != dtype:
            raise ValueError("it has gaps between its fields")
    except ValueError as error:
        raise ValueError(
            problem(
                f"records of dtype {dtype!s:.100} ({error})",
                "a structured dtype of numbers without gaps",
                "build it as numpy.dtype([(name, 'float16', shape), ...])",
            )
        ) from error


def _difference(before: Any, now: Any, name: str) -> tuple[str, str, str]:
    """Where two values of JSON first differ: the entry's name and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{name}.{key}" if name else key
            if key not in before:
                return inner, "nothing", repr(now[key])
            if key not in now:
                return inner, repr(before[key]), "nothing"
            if before[key] != now[key]:
                return _difference(before[key], now[key], inner)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            if old != new:
                return _difference(old, new, f"{name}[{index}]")
    return name, repr(before), repr(now)
