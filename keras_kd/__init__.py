"""Knowledge distillation for Keras, from a teacher to a verified student on a device.

`Distiller` teaches a student, `losses` says what it learns from, `compression` prunes and quantizes
it while it is taught, `tflite` turns it into a file and runs it, `evaluation` measures and compares,
`data` holds real digits to start with.
"""

from keras_kd import compression, data, evaluation, losses, tflite
from keras_kd._version import __version__
from keras_kd.distiller import Distiller

__all__ = [
    "Distiller",
    "__version__",
    "compression",
    "data",
    "evaluation",
    "losses",
    "tflite",
]
