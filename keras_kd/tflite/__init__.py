"""From a trained student to verified bytes on a device.

`convert` makes a `TFLiteModel`, `verify` compares it with the student, `microcontroller` runs it in
TensorFlow Lite Micro and writes it as source for firmware; `android` adds what phones need.
 Importing this loads no runtime: LiteRT and TFLM are imported when they are used.
"""

from typing import TYPE_CHECKING

from keras_kd._lazy import lazy_names

if TYPE_CHECKING:
    from keras_kd.tflite import android, microcontroller
    from keras_kd.tflite.contents.inspection import Inspection, inspect
    from keras_kd.tflite.contents.state import State
    from keras_kd.tflite.conversion.convert import convert
    from keras_kd.tflite.model import TFLiteModel
    from keras_kd.tflite.runtimes.benchmark import Benchmark
    from keras_kd.tflite.runtimes.latency import Latency
    from keras_kd.tflite.student import unrolled
    from keras_kd.tflite.tensors import TensorInfo
    from keras_kd.tflite.verification.verification import Verification, verify

__all__ = [
    "Benchmark",
    "Inspection",
    "Latency",
    "State",
    "TFLiteModel",
    "TensorInfo",
    "Verification",
    "android",
    "convert",
    "inspect",
    "microcontroller",
    "unrolled",
    "verify",
]

# Imported when they are first used: the processes that run files need nothing of this but
# `runtimes`, and neither Keras nor TensorFlow; nor does looking into a file.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Benchmark": "runtimes.benchmark",
        "Inspection": "contents.inspection",
        "Latency": "runtimes.latency",
        "State": "contents.state",
        "TFLiteModel": "model",
        "TensorInfo": "tensors",
        "Verification": "verification.verification",
        "android": "android",
        "convert": "conversion.convert",
        "inspect": "contents.inspection",
        "microcontroller": "microcontroller",
        "unrolled": "student",
        "verify": "verification.verification",
    },
)
