"""Loading of untrusted models without running code in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import one_line, problem, three_parts
from keras_kd._model_files import stored

if TYPE_CHECKING:
    import keras

_EXPECTED = (
    "a model saved by Keras 3 as .keras or .h5, or a SavedModel directory such as model.export "
    "writes"
)


def load_model(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """Load a model that was trained elsewhere; code inside a file is refused, not run.

    `.keras` and `.h5` are loaded by Keras 3 in its safe mode, after their sizes and names have been
    checked. A SavedModel is a program of TensorFlow: it is loaded if its operations compute tensors
    from tensors and do nothing else, and becomes a model with one layer that cannot be trained on.

    Args:
        path: a `.keras` or `.h5` file, or the directory of a SavedModel.
        custom_objects: the user's own classes and functions that the model is made of, by name.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it is no model, is damaged, or needs code that is not there.
    """
    path = Path(path)
    is_directory = check_path(path)
    # What finds a wrong path waits for no import of Keras.
    import keras

    from keras_kd._model_files import keras_files, saved_models

    read = saved_models.load if is_directory else keras_files.load
    try:
        model = read(path, dict(custom_objects or {}))
    except Exception as error:  # Damage shows as errors of zipfile, json, h5py, Keras and others.
        raise ValueError(_refusal(path, error)) from error
    if not isinstance(model, keras.Model):
        raise problem(
            f"the file {str(path)!r} with a {type(model).__name__}", _EXPECTED, "save a model"
        )
    return model


def check_path(path: Path) -> bool:
    """Whether the model at a path is a directory, a SavedModel; otherwise it is a file of Keras.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is neither.
    """
    if not path.exists():
        raise problem(
            f"the path {str(path)!r}", _EXPECTED, "check the path", kind=FileNotFoundError
        )
    if path.is_dir():
        is_model = stored.is_saved_model(path)
    else:
        is_model = path.is_file() and path.suffix in stored.SUFFIXES
    if not is_model:
        kind = "directory" if path.is_dir() else "file"
        raise problem(
            f"the {kind} {str(path)!r}", _EXPECTED, "load it as you saved it, and save it"
        )
    return path.is_dir()


def _refusal(path: Path, error: Exception) -> str:
    from keras_kd._model_files import keras_2
    from keras_kd._model_files.configs import ConfigError, OtherKerasError

    reason = _first_sentence(error)
    expected, fix = _EXPECTED, "copy it again, or save the model again, as .keras"
    is_of_other = (
        not isinstance(error, ConfigError)
        or isinstance(error, OtherKerasError)
        or any(f"{name!r}" in reason for name in keras_2.ONLY_IN_KERAS_2)
    )
    if is_of_other and stored.is_of_keras_2(path):
        reason = f"a model of Keras 2: {reason}"
        fix = (
            "if you trust the file, load it with tf_keras, write a SavedModel with "
            "model.export('directory') and pass this directory"
        )
    elif isinstance(error, ConfigError):
        expected += f", {error.expected}" if error.expected else ""
        fix = error.fix
    return three_parts(
        f"the {'directory' if path.is_dir() else 'file'} {str(path)!r}, which is refused "
        f"({reason})",
        expected,
        fix,
    )


def _first_sentence(error: Exception) -> str:
    text = one_line(error) or type(error).__name__
    return text.split(". ")[0][:200].rstrip(".")
