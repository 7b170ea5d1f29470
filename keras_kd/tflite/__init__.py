"""From a trained student to verified bytes on a device.

`convert` makes a `TFLiteModel`, `verify` compares it with the student, `microcontroller` runs it in
TensorFlow Lite Micro and `write_c_source` puts it into firmware; `android` brings it into the form
that phones want. Importing this loads no runtime: LiteRT and TFLM are imported when they are used.
"""

from keras_kd.tflite import android, microcontroller
from keras_kd.tflite.contents.inspection import Inspection
from keras_kd.tflite.conversion.convert import convert
from keras_kd.tflite.microcontroller.c_source import write_c_source
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.runtimes.benchmark import Benchmark
from keras_kd.tflite.runtimes.latency import Latency
from keras_kd.tflite.tensors import TensorInfo
from keras_kd.tflite.verification.comparison import FileComparison
from keras_kd.tflite.verification.verification import Verification, verify

__all__ = [
    "Benchmark",
    "FileComparison",
    "Inspection",
    "Latency",
    "TFLiteModel",
    "TensorInfo",
    "Verification",
    "android",
    "convert",
    "microcontroller",
    "verify",
    "write_c_source",
]
