"""Models in the files that Keras writes, `.keras` and `.h5`, loaded by Keras 3 in safe mode."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_kd._archives import check_expansion, check_members
from keras_kd._model_files.configs import check_config
from keras_kd._model_files.rehearsal import check_size

_HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (".keras", *_HDF5_SUFFIXES)
_WEIGHTS = ("model.weights.h5", "model.weights.npz")


def load(path: Path, custom_objects: dict[str, Any]) -> Any:
    """What is in the file; safe mode is on, and sizes are checked before anything is allocated.

    Raises:
        Exception: any, for damaged files and those that contain code.
    """
    if path.suffix in _HDF5_SUFFIXES:
        config, stored = _hdf5_config(path), path.stat().st_size
    else:
        config, stored = _keras_config(path)
    if "hard_sigmoid" in set(_strings(config)) and is_of_keras_2(path):
        # Keras 3 would load it and compute something else.
        raise ValueError("its hard_sigmoid is another function in Keras 3")
    # Compiling would only be needed to train on.
    config = {**config, "compile_config": None}
    check_config(config, custom_objects)
    check_size(config, custom_objects, stored)
    return keras.saving.load_model(path, custom_objects, compile=False, safe_mode=True)


def is_of_keras_2(path: Path) -> bool:
    """Whether the file says that Keras 2 wrote it; False where it says nothing that can be read."""
    try:
        if path.suffix in _HDF5_SUFFIXES:
            version = _hdf5_attributes(path)["keras_version"]
        else:
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
        return str(version).startswith(("1.", "2."))
    except Exception:  # It has been refused already; this only finds words for it.
        return False


def _keras_config(path: Path) -> tuple[dict[str, Any], int]:
    """What the archive says of the model, and how many bytes of weights it has."""
    check_members(path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        weights = [name for name in _WEIGHTS if name in names]
        if "config.json" not in names or not weights:
            raise ValueError("it has no config.json or no model.weights.h5")
        if weights[0].endswith(".h5"):
            with archive.open(weights[0]) as file:
                _check_hdf5(file, archive.getinfo(weights[0]).file_size)
        config = json.loads(archive.read("config.json"))
        return config, archive.getinfo(weights[0]).file_size


def _hdf5_config(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        _check_hdf5(file, path.stat().st_size)
    attributes = _hdf5_attributes(path)
    if "model_config" not in attributes:
        raise ValueError("it has weights but no model: it was written by save_weights")
    return json.loads(attributes["model_config"])


def _hdf5_attributes(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        return {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in file.attrs.items()
        }


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
