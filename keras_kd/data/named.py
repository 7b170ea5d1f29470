"""Data sets that tensorflow-datasets (TFDS) keeps on the user's disk."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd.data.dataset import Dataset, from_bytes

NAMES = ("mnist", "fashion_mnist")


def load(name: str, data_dir: str | os.PathLike | None = None) -> Dataset:
    """Load a whole data set that is already on the disk; nothing is downloaded.

    Args:
        name: "mnist" or "fashion_mnist".
        data_dir: the TFDS data directory. None: the environment variable `TFDS_DATA_DIR`, else
            TFDS' own default.

    Raises:
        ValueError: if `name` is unknown, or the files of the data set are damaged.
        FileNotFoundError: if the directory does not hold the data set.
        ModuleNotFoundError: if tensorflow-datasets is not installed.
    """
    builder = _builder(name, data_dir)
    training, test = _read(builder, "train"), _read(builder, "test")
    return from_bytes(name, training, test, tuple(builder.info.features["label"].names))


def load_arrays(
    name: str, data_dir: str | os.PathLike | None = None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Like `load`, as the stored integers: ((x_train, y_train), (x_test, y_test))."""
    builder = _builder(name, data_dir)
    return _read(builder, "train"), _read(builder, "test")


def _tensorflow_datasets() -> ModuleType:
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            problem(
                "a data set's name without tensorflow-datasets installed",
                "the `examples` extra",
                "run: pip install 'keras-kd[examples]', or use the bundled sample",
            ),
            name=error.name,
        ) from error
    return tensorflow_datasets


def _builder(name: str, data_dir: str | os.PathLike | None) -> Any:
    check_choice("name", name, NAMES)
    tfds = _tensorflow_datasets()
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR")
    directory = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    missing = problem(
        f"data_dir={str(directory)!r}, which does not hold {name!r}",
        f"a TFDS data directory with {name}/VERSION/dataset_info.json in it",
        f"name the right directory, or download the data into this one with `tfds build {name} "
        f"--data_dir {directory}`",
    )
    # TFDS logs warnings about directories that are not there, so look before asking it.
    if not any(directory.glob(f"{name}/*/dataset_info.json")):
        raise FileNotFoundError(missing)
    try:
        builder = tfds.builder(name, data_dir=directory)
        prepared = builder.is_prepared()
    except Exception as error:  # TFDS raises whatever its parsers of JSON and protobuf raise.
        raise ValueError(_damaged(name, directory)) from error
    if not prepared:
        raise FileNotFoundError(missing)
    return builder


def _read(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of one split, in the order of the files."""
    try:
        images, labels = builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        return images.numpy(), labels.numpy()
    except Exception as error:  # Damage shows as many kinds of TensorFlow and TFDS errors.
        raise ValueError(_damaged(builder.name, builder.data_dir)) from error


def _damaged(name: str, directory: str | os.PathLike) -> str:
    return problem(
        f"files of {name!r} in '{directory}' that cannot be read",
        "the complete files that TFDS wrote",
        "delete that directory and prepare the data set again",
    )
