"""Reading Keras models that come from anywhere."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import keras

from keras_kd._checks import one_line, problem


def load_model(path: str | os.PathLike) -> keras.Model:
    """Load a `.keras` file with Keras 3 in safe mode: code inside it is refused, not run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no `.keras` file, is damaged, or needs code that is not there.
    """
    path = Path(path)
    expected = "a model saved by Keras 3 with model.save('model.keras')"
    if not path.is_file():
        raise FileNotFoundError(problem(f"the path {str(path)!r}", expected, "check the path"))
    if path.suffix != ".keras":
        raise ValueError(
            problem(
                f"the file {str(path)!r}",
                expected,
                "load it as you saved it, and save it as .keras",
            )
        )
    try:
        if not zipfile.is_zipfile(path):
            # Keras would say that there is no such file.
            raise ValueError("it is no zip archive")
        # Compiling would only be needed to train on.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Damage shows as errors of zipfile, json, h5py, Keras and others.
        raise ValueError(
            problem(
                f"the file {str(path)!r}, which Keras refuses ({_first_sentence(error)})",
                expected + ", without Lambda layers or classes of your own",
                "save it again, or load it in Python and call keras_kd.tflite.convert there",
            )
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            problem(
                f"the file {str(path)!r} with a {type(model).__name__}", expected, "save a model"
            )
        )
    return model


def _first_sentence(error: Exception) -> str:
    text = one_line(error) or type(error).__name__
    return text.split(". ")[0][:200].rstrip(".")
