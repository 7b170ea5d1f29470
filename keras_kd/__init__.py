"""Knowledge distillation for Keras, from a teacher to a verified student on a device."""

from keras_kd._version import __version__

__all__ = ["__version__"]
