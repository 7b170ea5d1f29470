"""Knowledge distillation for Keras, from a teacher to a verified student on a device.

`Distiller` teaches a student, `losses` says what it learns from, `compression` prunes and quantizes
it while it is taught, `tflite` turns it into a file and runs it, `evaluation` compares models,
`data` holds real digits to start with.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

from keras_kd._version import __version__

if TYPE_CHECKING:
    from keras_kd import compression, data, evaluation, losses, tflite
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

_ROOMS = ("compression", "data", "distiller", "evaluation", "losses", "tflite")


def __getattr__(name: str) -> Any:
    """Import the rooms when a public name is first used.

    Importing Keras takes seconds, for which `keras-kd --help` need not wait.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_rooms()
    return globals()["distiller"].Distiller if name == "Distiller" else globals()[name]


def __dir__() -> list[str]:
    return __all__


def _import_rooms() -> None:
    for room in _ROOMS:
        importlib.import_module(f"{__name__}.{room}")


def _register_with(_: ModuleType) -> None:
    """Let `keras.models.load_model` find the Distiller and the losses, once Keras is there."""
    # A room that is being imported may be what imports Keras: not round in a circle then.
    if not any(f"{__name__}.{room}" in sys.modules for room in _ROOMS):
        _import_rooms()


wrapt.register_post_import_hook(_register_with, "keras")
