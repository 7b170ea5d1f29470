"""Examples and labels from NumPy files."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from keras_kd._archives import check_members
from keras_kd._checks import one_line, problem
from keras_kd._memory import check_expansion

_EXPECTED = "numbers saved with numpy.save or numpy.savez"
# What numpy.savez calls an array that was given no name.
_UNNAMED = "arr_0"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_examples(path: str | os.PathLike) -> np.ndarray | dict[str, np.ndarray]:
    """Load examples from a `.npy` or `.npz` file; pickled objects in it are refused, not run.

    Returns:
        The array of a `.npy`, or of a `.npz` whose only array has no name; else a dict
        with the arrays of the `.npz` by their names, which are those of a model's inputs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else than numbers.
    """
    return _numbers(Path(path), _read)


def map_examples(path: str | os.PathLike) -> np.ndarray | dict[str, np.ndarray]:
    """Like `load_examples`, but the array of a `.npy` stays on the disk until it is looked at.

    Of a `.npz` there is nothing to map; its arrays are loaded.
    """
    return _numbers(Path(path), _map)


def load_keys(path: str | os.PathLike) -> np.ndarray:
    """Load the keys of examples from a `.npy` file: whole numbers or texts, shape (examples,).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else.
    """
    keys = _arrays(Path(path), _read)
    received = f"{len(keys)} arrays"
    if len(keys) == 1:
        (array,) = keys.values()
        if array.ndim == 1 and array.dtype.kind in "iuSU":
            return array
        received = f"an array of shape {array.shape} and type {array.dtype}"
    raise problem(
        f"{received} as keys in {str(path)!r}",
        "one key for each example, whole numbers or texts, in the shape (examples,)",
        "save them with numpy.save",
    )


def load_labels(path: str | os.PathLike) -> np.ndarray | dict[str, np.ndarray]:
    """Load labels from a `.npy` or `.npz` file: numbers, as many as there are examples.

    Returns:
        The array of a `.npy`, or of a `.npz` with one array; else a dict with the arrays of the
        `.npz` by their names, which are those of a model's outputs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else than numbers.
    """
    labels = load_examples(path)
    if isinstance(labels, dict) and len(labels) == 1:
        (labels,) = labels.values()
    return labels


def check_path(path: Path) -> None:
    """Raise FileNotFoundError if there is no file at a path."""
    if not path.is_file():
        raise problem(
            f"the path {str(path)!r}", _EXPECTED, "check the path", kind=FileNotFoundError
        )


def _numbers(
    path: Path, read: Callable[[Path], dict[str, np.ndarray]]
) -> np.ndarray | dict[str, np.ndarray]:
    """The arrays of a file, which are numbers."""
    arrays = _arrays(path, read)
    for name, array in arrays.items():
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise problem(
                f"the array {name!r} of shape {array.shape} and type {array.dtype} in "
                f"{str(path)!r}",
                "numbers, shaped (examples, ...)",
                "save the examples as the model takes them",
            )
    return arrays[_UNNAMED] if list(arrays) == [_UNNAMED] else arrays


def _arrays(path: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a file, unchecked."""
    check_path(path)
    try:
        return read(path)
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds for damaged files.
        raise problem(
            f"the file {str(path)!r}, which NumPy cannot read ({one_line(error)[:200]})",
            _EXPECTED,
            "save the examples again with numpy.save or numpy.savez, uncompressed",
        ) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return {_UNNAMED: _array(file, path.stat().st_size)}
    check_members(path)
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                raise ValueError(f"its member {member.filename!r} is no array")
            with archive.open(member) as file:
                name = member.filename.removesuffix(".npy")
                arrays[name] = _array(file, member.file_size)
    if not arrays:
        raise ValueError("it has no arrays")
    return arrays


def _map(path: Path) -> dict[str, np.ndarray]:
    """As `_read`, without reading what is not looked at."""
    if zipfile.is_zipfile(path):
        return _read(path)
    with path.open("rb") as file:
        if not _check_header(file, path.stat().st_size):
            return _read(path)
    return {_UNNAMED: np.lib.format.open_memmap(path, mode="r")}


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """One array, if it is as long as its header declares."""
    check_expansion("the array", _check_header(file, size), size)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _check_header(file: IO[bytes], size: int) -> int:
    """How many bytes the array has; raises an error if there are fewer, or if it has objects."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"it is of the version {version} of NumPy's format")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it has Python objects in it, which are not loaded")
    if dtype.itemsize == 0:
        raise ValueError("its values have no bytes")
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared > size:
        raise ValueError(f"its header declares {declared} bytes, and there are {size}")
    return declared
