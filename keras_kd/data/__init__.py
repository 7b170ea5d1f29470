"""Data: a bundled sample of MNIST, whole data sets through TFDS, and a user's own NumPy files."""

from keras_kd.data.dataset import Dataset
from keras_kd.data.examples import load_examples
from keras_kd.data.named import load
from keras_kd.data.sample import load_sample

__all__ = ["Dataset", "load", "load_examples", "load_sample"]
