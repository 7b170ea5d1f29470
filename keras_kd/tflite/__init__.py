"""From a trained student to verified bytes on a device.

`convert` makes a `TFLiteModel`; `microcontroller` runs it in TensorFlow Lite Micro. Importing this
loads no runtime: LiteRT and TFLM are imported when they are used.
"""

from keras_kd.tflite import microcontroller
from keras_kd.tflite.convert import convert
from keras_kd.tflite.latency import Latency
from keras_kd.tflite.runtime import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

__all__ = ["Latency", "TFLiteModel", "TensorInfo", "convert", "microcontroller"]
