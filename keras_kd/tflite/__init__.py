"""From a trained student to verified bytes on a device.

`convert` makes a `TFLiteModel`, `verify` compares it with the student, `microcontroller` runs it in
TensorFlow Lite Micro and `write_c_source` puts it into firmware; `android` brings it into the form
that phones want. Importing this loads no runtime: LiteRT and TFLM are imported when they are used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_kd.tflite import android, microcontroller
    from keras_kd.tflite.contents.inspection import Inspection
    from keras_kd.tflite.contents.state import State
    from keras_kd.tflite.conversion.convert import convert
    from keras_kd.tflite.conversion.students import unrolled
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
    "State",
    "TFLiteModel",
    "TensorInfo",
    "Verification",
    "android",
    "convert",
    "microcontroller",
    "unrolled",
    "verify",
    "write_c_source",
]

# Imported when they are first used: the processes that run files need nothing of this but
# `runtimes`, and neither Keras nor TensorFlow.
_MODULES = {
    "Benchmark": "runtimes.benchmark",
    "FileComparison": "verification.comparison",
    "Inspection": "contents.inspection",
    "Latency": "runtimes.latency",
    "State": "contents.state",
    "TFLiteModel": "model",
    "TensorInfo": "tensors",
    "Verification": "verification.verification",
    "convert": "conversion.convert",
    "unrolled": "conversion.students",
    "verify": "verification.verification",
    "write_c_source": "microcontroller.c_source",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, those too that were not used yet."""
    return sorted({*globals(), *__all__})
