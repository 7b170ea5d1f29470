"""Models in the files that Keras writes, `.keras` and `.h5`, loaded by Keras 3 in safe mode."""

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

from keras_kd._archives import check_json_member, check_json_size, check_members, read_json
from keras_kd._memory import check_expansion
from keras_kd._model_files.configs import ConfigError, check_config, check_words
from keras_kd._model_files.keras_2 import modernized
from keras_kd._model_files.rehearsal import check_size, small_results

_HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (".keras", *_HDF5_SUFFIXES)
_WEIGHTS = ("model.weights.h5", "model.weights.npz")


def load(path: Path, custom_objects: dict[str, Any]) -> Any:
    """What is in the file; safe mode is on, and sizes are checked before anything is allocated.

    Raises:
        Exception: any, for damaged files and those that contain code.
    """
    config = _hdf5_config(path) if path.suffix in _HDF5_SUFFIXES else _keras_config(path)
    if "hard_sigmoid" in set(_strings(config)) and is_of_keras_2(path):
        # Keras 3 would load it and compute something else.
        raise ValueError("its hard_sigmoid is another function in Keras 3")
    read = config
    if path.suffix in _HDF5_SUFFIXES and is_of_keras_2(path):
        config = modernized(config)
    # Compiling would only be needed to train on.
    check_config({**config, "compile_config": None}, custom_objects)
    stored = path.stat().st_size
    # Keras takes configs apart that it reads.
    check_size({**deepcopy(config), "compile_config": None}, custom_objects, stored)
    mended = nullcontext(path) if config == read else _with_config(path, config)
    with small_results(stored), mended as readable:
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


def is_of_keras_2(path: Path) -> bool:
    """Whether the file says that Keras 2 wrote it; False where it says nothing that can be read."""
    try:
        if path.suffix in _HDF5_SUFFIXES:
            version = _hdf5_attribute(path, "keras_version")
        else:
            with zipfile.ZipFile(path) as archive:
                version = read_json(archive, "metadata.json")["keras_version"]
        return str(version).startswith(("1.", "2."))
    except Exception:  # It has been refused already; this only finds words for it.
        return False


def _keras_config(path: Path) -> dict[str, Any]:
    """What the archive says of the model."""
    check_members(path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        weights = [name for name in _WEIGHTS if name in names]
        if "config.json" not in names or not weights:
            raise ValueError("it has no config.json or no model.weights.h5")
        # HDF5 seeks, and goes through a compressed member again and again: first the rest.
        config = read_json(archive, "config.json")
        if "metadata.json" in names:
            check_json_member(archive, "metadata.json")
        for name in names:
            if name.startswith("assets/") and name.endswith(".txt"):
                with archive.open(name) as file:
                    check_words(f"its {name}", (line.rstrip(b"\n") for line in file))
        if weights[0].endswith(".h5"):
            with archive.open(weights[0]) as file:
                # Both the archive and HDF5 compress: what counts is the file.
                _check_hdf5(file, path.stat().st_size)
        return config


def _hdf5_config(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        _check_hdf5(file, path.stat().st_size)
    text = _hdf5_attribute(path, "model_config")
    if text is None:
        raise ConfigError(
            "it has weights but no model: it was written by save_weights",
            "",
            f"build the model in code, call model.load_weights({path.name!r}), then "
            "model.save('model.keras'), and pass that file",
        )
    return json.loads(text)


def _hdf5_attribute(path: Path, name: str) -> str | None:
    """A text that describes the model; None if there is none."""
    import h5py

    with h5py.File(path, "r") as file:
        if name not in file.attrs:
            return None
        value = file.attrs[name]
    check_json_size(f"its {name}", len(value))
    return value.decode() if isinstance(value, bytes) else value


def _check_hdf5(file: Any, stored: int) -> None:
    """Refuse datasets that declare far more than is stored or that lie in other files."""
    import h5py

    declared = 0

    # h5py loses exceptions on the way through the C library; what is returned ends the visit.
    def link_elsewhere(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"its {name!r} is a link"

    def dataset_elsewhere(name: str, item: Any) -> str | None:
        nonlocal declared
        if not isinstance(item, h5py.Dataset):
            return None
        declared += item.nbytes
        if item.dtype.hasobject:
            return f"its {name!r} holds values of any size"
        return f"its {name!r} lies in another file" if item.external or item.is_virtual else None

    with h5py.File(file, "r") as opened:
        found = opened.visititems_links(link_elsewhere) or opened.visititems(dataset_elsewhere)
    if found:
        raise ValueError(found)
    check_expansion("its weights", declared, stored)


def _strings(value: Any) -> Iterator[str]:
    """Every string in nested lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
