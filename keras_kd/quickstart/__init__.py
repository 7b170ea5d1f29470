"""The whole path in one call, on real digits: what `keras-kd quickstart` runs.

The one module where the Distiller, compression and TFLite meet.
"""

from keras_kd import _backends

# Before the modules that import TensorFlow.
_backends.check_tensorflow(__name__)

# ruff: noqa: E402
from keras_kd.quickstart.run import run
from keras_kd.quickstart.settings import Settings

__all__ = ["Settings", "run"]
