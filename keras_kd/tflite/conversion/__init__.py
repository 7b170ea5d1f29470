"""From a Keras model to the bytes of a file."""

from keras_kd import _backends

# Before the modules that import TensorFlow.
_backends.check_tensorflow(__name__)
