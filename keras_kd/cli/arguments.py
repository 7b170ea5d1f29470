"""Options that several commands share, and reading of the files that they name."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import one_line, problem
from keras_kd._limits import watched

if TYPE_CHECKING:
    import keras
    import numpy as np

PROGRAM = "keras-kd"
BAD_INPUT = 2
DATA = "DATA.npy|DATA.npz|IMAGE_DIR|TFDS_NAME"
TFLITE = ".tflite"
MODEL = "MODEL.keras|MODEL.h5|SAVED_MODEL_DIR"
# Far more than any model needs that is read from a slow disk.
_SECONDS_TO_LOAD = 120
BYTES_PER_SECOND = 10e6


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage around them."""

    def error(self, message: str) -> None:
        """End the program with the message and the code for bad input."""
        self.exit(BAD_INPUT, f"{PROGRAM}: error: {one_line(message)} (see {self.prog} --help)\n")


def whole_number(at_least: int, at_most: int | None = None, usual: int = 1) -> Callable[[str], int]:
    """What reads an option that takes a whole number.

    Args:
        at_least: the smallest one.
        at_most: the largest one; None: any.
        usual: what to name as an example.
    """

    def read(text: str) -> int:
        number = int(text)
        if number < at_least or (at_most is not None and number > at_most):
            most = "" if at_most is None else f" and at most {at_most}"
            expected = f"a whole number of at least {at_least}{most}"
            raise problem(text, expected, f"try {usual}", kind=argparse.ArgumentTypeError)
        return number

    # argparse prints "invalid whole number value".
    read.__name__ = "whole number"
    return read


def real_number(
    above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> Callable[[str], float]:
    """What reads an option that takes a finite number in some bounds."""

    def read(text: str) -> float:
        number = float(text)
        if not (above < number and at_least <= number <= at_most and math.isfinite(number)):
            bounds = [
                f"{word} {bound:g}"
                for word, bound in (("above", above), ("at least", at_least), ("at most", at_most))
                if math.isfinite(bound)
            ]
            expected = f"a finite number {' and '.join(bounds)}".strip()
            raise problem(text, expected, "choose one of them", kind=argparse.ArgumentTypeError)
        return number

    read.__name__ = "number"
    return read


def check_models(*paths: Path | None) -> None:
    """Refuse what is no model, a `.tflite` or what Keras writes, before anything is imported.

    Raises:
        FileNotFoundError: if there is nothing at a path.
        ValueError: if what is there is no model.
    """
    from keras_kd import _model_files

    for path in paths:
        if path is None:
            continue
        if path.suffix == TFLITE:
            check_files([path])
        else:
            _model_files.check_path(path)


def check_files(paths: Iterable[Path]) -> None:
    """Refuse `.tflite` files that are not there.

    Raises:
        FileNotFoundError: if one is not there.
    """
    from keras_kd.tflite.contents.inspection import check_path

    for path in paths:
        check_path(path)


def check_custom_objects(custom_objects: str | None) -> None:
    """Refuse a file with the user's own layers that is not there.

    Raises:
        FileNotFoundError: if it is not there.
    """
    from keras_kd._model_files.custom_objects import check_file

    if custom_objects:
        check_file(custom_objects)


def check_data(*paths: str | Path | None) -> None:
    """Refuse NumPy files that are not there, before one of them is read.

    Raises:
        FileNotFoundError: if one is not there.
    """
    from keras_kd.data.examples import check_path

    for path in paths:
        if path is not None:
            check_path(Path(path))


def add_target(parser: argparse._ActionsContainer, usual: str, *, is_set: bool = True) -> None:
    """`--target`: where a file runs.

    Args:
        parser: that gets the option.
        usual: what is meant where nothing is given.
        is_set: whether the option then has this value; else None.
    """
    parser.add_argument(
        "--target",
        choices=("android", "microcontroller", "web"),
        default=usual if is_set else None,
        help=f"where the file will run (default: {usual})",
    )


def add_seed(parser: argparse._ActionsContainer, about: str = "") -> None:
    """`--seed`: of everything that is drawn at random.

    Args:
        parser: that gets the option.
        about: its description.
    """
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=0,
        help=f"{about} (default: %(default)s)".strip(),
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: for programs that read the result."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_custom_objects(parser: argparse.ArgumentParser) -> None:
    """`--custom-objects`: the only code of the user's that a model may need."""
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

    _model_files.check_path(path)
    from keras_kd.sound import LogMel

    # Keras finds the layers of this package once they are imported; the command imports few.
    own: dict[str, Any] = {LogMel.__name__: LogMel}
    if custom_objects:
        own |= import_custom_objects(custom_objects)
    seconds = _SECONDS_TO_LOAD + _bytes(path) / BYTES_PER_SECOND
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
    return given if given is None or is_name_or_directory(given) else examples(given)


def labels(path: Path | None) -> np.ndarray | dict[str, np.ndarray] | None:
    """Labels from a NumPy file, by output where there are several arrays."""
    from keras_kd.data.examples import load_labels

    return None if path is None else load_labels(path)


def is_name_or_directory(given: str) -> bool:
    """Whether data are no NumPy file, but a directory or the name of a data set."""
    path = Path(given)
    return path.is_dir() or not (path.exists() or path.suffix)
