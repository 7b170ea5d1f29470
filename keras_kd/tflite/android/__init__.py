"""Android: students in the form that its libraries take, and metadata of files.

`add_metadata` writes class names, normalization and the rest into a file, so that MediaPipe's
tasks run it; `read_metadata` reads them back. `with_color_input`, `with_normalization` and
`with_softmax` bring a student into the form that they take. Importing this loads no runtime.
"""

from typing import TYPE_CHECKING

from keras_kd._lazy import lazy_names

if TYPE_CHECKING:
    from keras_kd.tflite.android.class_names import read_class_names
    from keras_kd.tflite.android.metadata import Metadata, ScoreCalibration, normalization
    from keras_kd.tflite.android.reading import read_metadata
    from keras_kd.tflite.android.students import (
        with_color_input,
        with_normalization,
        with_softmax,
    )
    from keras_kd.tflite.android.vocabulary import read_vocabulary
    from keras_kd.tflite.android.writing import add_metadata

__all__ = [
    "Metadata",
    "ScoreCalibration",
    "add_metadata",
    "normalization",
    "read_class_names",
    "read_metadata",
    "read_vocabulary",
    "with_color_input",
    "with_normalization",
    "with_softmax",
]

# Class names are read before Keras is needed.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Metadata": "metadata",
        "ScoreCalibration": "metadata",
        "add_metadata": "writing",
        "normalization": "metadata",
        "read_class_names": "class_names",
        "read_metadata": "reading",
        "read_vocabulary": "vocabulary",
        "with_color_input": "students",
        "with_normalization": "students",
        "with_softmax": "students",
    },
)
