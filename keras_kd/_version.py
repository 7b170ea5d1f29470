"""The version, apart from the package so that building it needs no TensorFlow."""

__version__ = "0.1.0"
