"""Knowledge distillation for Keras, from a teacher to a verified student on a device.

`Distiller` teaches a student, `losses` says what it learns from, `compression` prunes and quantizes
it while it is taught, `tflite` turns it into a file and runs it, `evaluation` compares models,
`data` holds real digits to start with.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from keras_kd._version import __version__

__all__ = [
    "Distiller",
    "__version__",
    "compression",
    "data",
    "evaluation",
    "losses",
    "tflite",
]

# Importing Keras takes seconds, which `keras-kd --help` need not wait for. Where Keras is there
# already, everything is imported at once: it registers what `keras.models.load_model` must find.
if TYPE_CHECKING or "keras" in sys.modules:
    from keras_kd import compression, data, evaluation, losses, tflite
    from keras_kd.distiller import Distiller


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Distiller":
        return importlib.import_module("keras_kd.distiller").Distiller
    return importlib.import_module(f"keras_kd.{name}")


def __dir__() -> list[str]:
    return __all__
