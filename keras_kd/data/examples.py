"""Examples that a user keeps in NumPy files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_kd._checks import problem


def load_examples(path: str | os.PathLike) -> np.ndarray | dict[str, np.ndarray]:
    """Load examples from a `.npy` or `.npz` file; pickled objects in it are refused, not run.

    Returns:
        The array of a `.npy`, or of a `.npz` that holds one; else a dict with the arrays of the
        `.npz` by their names, which are those of a model's inputs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or holds something else than numbers.
    """
    path = Path(path)
    expected = "numbers saved with numpy.save or numpy.savez"
    if not path.is_file():
        raise FileNotFoundError(problem(f"the path {str(path)!r}", expected, "check the path"))
    try:
        arrays = _read(path)
    except Exception as error:  # NumPy, zipfile and zlib raise many kinds for damaged files.
        raise ValueError(
            problem(
                f"the file {str(path)!r}, which NumPy cannot read ({type(error).__name__})",
                expected,
                "save the examples again with numpy.save",
            )
        ) from error
    for name, array in arrays.items():
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise ValueError(
                problem(
                    f"the array {name!r} of shape {array.shape} and type {array.dtype} in "
                    f"{str(path)!r}",
                    "numbers, shaped (examples, ...)",
                    "save the examples as the model takes them",
                )
            )
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def _read(path: Path) -> dict[str, np.ndarray]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {path.stem: loaded}
    with loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    # Of other zip archives NumPy gives the files as bytes.
    if not arrays or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("no arrays")
    return arrays
