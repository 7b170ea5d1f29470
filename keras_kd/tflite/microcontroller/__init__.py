"""TensorFlow Lite Micro (TFLM): run a model as a microcontroller would, and write it as source.

Importing this loads no runtime.
"""

from keras_kd._lazy import publish
from keras_kd.tflite.microcontroller.agreement import Agreement, check_agreement
from keras_kd.tflite.microcontroller.c_source import write_c_source
from keras_kd.tflite.microcontroller.project import write_project
from keras_kd.tflite.microcontroller.running import (
    MicrocontrollerRun,
    is_installed,
    run,
    run_stored,
)

__all__ = [
    "Agreement",
    "MicrocontrollerRun",
    "check_agreement",
    "is_installed",
    "run",
    "run_stored",
    "write_c_source",
    "write_project",
]

publish(__name__, __all__)
