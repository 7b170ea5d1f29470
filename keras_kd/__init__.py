"""Knowledge distillation for Keras, from a teacher to a verified student on a device.

`Distiller` trains a student on the outputs of one of the `teachers`, `losses` define how both are
compared, and `schedules` change weights and temperatures with the step. `compression` prunes and
quantizes the student while it trains, `tflite` converts it to a file and runs it, `metrics`
measures outputs, `evaluation` compares models, and `data` holds real digits to start with.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._version import __version__

__all__ = [
    "Distiller",
    "__version__",
    "callbacks",
    "compression",
    "data",
    "distiller",
    "evaluation",
    "losses",
    "metrics",
    "schedules",
    "teachers",
    "tflite",
]


def _runs_as_command() -> bool:
    """Whether this process is `keras-kd` or `python -m keras_kd`."""
    program = sys.argv[0] if sys.argv else ""
    return Path(program).stem == "keras-kd" or (program == "-m" and "keras_kd" in sys.orig_argv)


# Importing Keras takes seconds and logs to the terminal. The command decides when; `--help` never.
# What Keras may find in a file of a Distiller is there from the beginning, the rest when needed.
if TYPE_CHECKING or not _runs_as_command():
    from keras_kd import losses, schedules, teachers
    from keras_kd.distiller import Distiller
if TYPE_CHECKING:
    from keras_kd import callbacks, compression, data, distiller, evaluation, metrics, tflite


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Distiller":
        return importlib.import_module(f"{__name__}.distiller").Distiller
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """All public names, those too that were not used yet."""
    return sorted({*globals(), *__all__})
