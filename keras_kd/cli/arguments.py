"""Options that several commands have, and how what they name is read."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import one_line
from keras_kd._limits import watched

if TYPE_CHECKING:
    import keras
    import numpy as np

PROGRAM = "keras-kd"
BAD_INPUT = 2
DATA = "DATA.npy|DATA.npz|IMAGE_DIR|TFDS_NAME"
MODEL = "MODEL.keras|MODEL.h5|SAVED_MODEL_DIR"
# Far more than any model needs that is read from a slow disk.
_SECONDS_TO_LOAD = 120
_BYTES_PER_SECOND = 10e6


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage around it."""

    def error(self, message: str) -> None:
        """End the program with the message and the code for bad input."""
        self.exit(BAD_INPUT, f"{PROGRAM}: error: {one_line(message)} (see {self.prog} --help)\n")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: for programs that read the result."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_custom_objects(parser: argparse.ArgumentParser) -> None:
    """`--custom-objects`: the only code that a model may bring along."""
    parser.add_argument(
        "--custom-objects",
        metavar="FILE.py|MODULE",
        help="your own layers and functions that the model is made of. It is imported, so that "
        "what is in it runs: name only code that you trust. Code inside a model file never runs",
    )


def load_model(path: Path, custom_objects: str | None) -> keras.Model:
    """The model at `path`, built with the user's own classes where they are named."""
    from keras_kd import _model_files
    from keras_kd._model_files.custom_objects import import_custom_objects

    own = import_custom_objects(custom_objects) if custom_objects else None
    seconds = _SECONDS_TO_LOAD + _bytes(path) / _BYTES_PER_SECOND
    with watched(f"the model {str(path)!r} while it is loaded", seconds):
        model = _model_files.load_model(path, own)
    if path.is_dir():
        # The program in a SavedModel may crash or never end, whatever it is given.
        with watched(f"the model {str(path)!r} on its first example", seconds):
            _run_once(model)
    return model


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _run_once(model: keras.Model) -> None:
    import keras
    import numpy as np

    zeros = [
        np.zeros(
            [size or 1 for size in tensor.shape], keras.backend.standardize_dtype(tensor.dtype)
        )
        for tensor in model.inputs
    ]
    # What it cannot do with zeros it may do with examples.
    with contextlib.suppress(Exception):
        model(zeros if len(zeros) > 1 else zeros[0])


def examples(given: str | None) -> Any:
    """Examples from a NumPy file."""
    from keras_kd.data import load_examples

    return None if given is None else load_examples(given)


def representative_data(given: str | None) -> Any:
    """Examples from a NumPy file; directories and names are read where they are used."""
    return given if given is None or _is_name_or_directory(given) else examples(given)


def labels(path: Path | None) -> np.ndarray | dict[str, np.ndarray] | None:
    """Labels from a NumPy file, by output where there are several arrays."""
    from keras_kd.data.examples import load_labels

    return None if path is None else load_labels(path)


def _is_name_or_directory(given: str) -> bool:
    path = Path(given)
    return path.is_dir() or not (path.exists() or path.suffix)
