"""Knowledge distillation for Keras, from a teacher to a verified student on a device."""

from keras_kd import losses
from keras_kd._version import __version__
from keras_kd.distiller import Distiller

__all__ = ["Distiller", "__version__", "losses"]
