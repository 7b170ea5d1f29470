"""Run TensorFlow's converter. A process of its own: calibrating a loop can end it.

It is started by its path. Arguments: a directory with `saved_model` and `examples.npz` (arrays by
input name, shaped (examples, ...)), and the converter's options. Writes `model.tflite` there, or
why not to `error.txt`.
"""

import os
import sys
from pathlib import Path

# Python puts the directory of this file first, whose modules must not hide others of their name;
# the package itself may lie where nothing but the importing process has found it.
sys.path[0] = str(Path(__file__).resolve().parents[3])

import numpy as np  # noqa: E402

from keras_kd._checks import one_line  # noqa: E402
from keras_kd.tflite.conversion.converter import Options, convert_saved_model  # noqa: E402


def main(directory: str, options: str) -> None:
    """Convert the model in the directory."""
    with np.load(os.path.join(directory, "examples.npz")) as stored:
        examples = dict(stored)
    saved = os.path.join(directory, "saved_model")
    try:
        content = convert_saved_model(saved, Options.loads(options), examples)
    except Exception as error:
        with open(os.path.join(directory, "error.txt"), "w", encoding="utf-8") as file:
            file.write(f"{type(error).__name__}: {one_line(error)}")
        return
    with open(os.path.join(directory, "model.tflite"), "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
