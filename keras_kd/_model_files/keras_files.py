"""Loading of `.keras` and `.h5` files by Keras 3 in safe mode."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import keras

from keras_kd._model_files import stored
from keras_kd._model_files.configs import check_config, check_words
from keras_kd._model_files.keras_2 import modernized
from keras_kd._model_files.rehearsal import check_size, small_results


def load(path: Path, custom_objects: dict[str, Any]) -> Any:
    """What is in the file; safe mode is on, and sizes are checked before anything is allocated.

    Raises:
        Exception: any, for damaged files and those that contain code.
    """
    config = stored.config(path)
    if path.suffix not in stored.HDF5_SUFFIXES:
        _check_assets(path)
    if "hard_sigmoid" in set(_strings(config)) and stored.is_of_keras_2(path):
        # Keras 3 would load it and compute something else.
        raise ValueError("its hard_sigmoid is another function in Keras 3")
    read = config
    if path.suffix in stored.HDF5_SUFFIXES and stored.is_of_keras_2(path):
        config = modernized(config)
    # Compiling would only be needed to train on.
    check_config({**config, "compile_config": None}, custom_objects)
    size = path.stat().st_size
    # Keras takes configs apart that it reads.
    check_size({**deepcopy(config), "compile_config": None}, custom_objects, size)
    mended = nullcontext(path) if config == read else _with_config(path, config)
    with small_results(size), mended as readable:
        return keras.saving.load_model(readable, custom_objects, compile=False, safe_mode=True)


@contextmanager
def _with_config(path: Path, config: dict[str, Any]) -> Iterator[Path]:
    """A copy of an HDF5 file with another config of its model; it goes when this ends."""
    import h5py

    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, path.name)
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        yield copy


def _check_assets(path: Path) -> None:
    """Refuse lists of words in a `.keras` that are too long to be read."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith("assets/") and name.endswith(".txt"):
                with archive.open(name) as file:
                    check_words(f"its {name}", (line.rstrip(b"\n") for line in file))


def _strings(value: Any) -> Iterator[str]:
    """Every string in nested lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
