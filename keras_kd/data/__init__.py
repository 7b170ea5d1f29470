"""Data to try the package on: a bundled sample of MNIST, and whole data sets through TFDS."""

from keras_kd.data.dataset import Dataset
from keras_kd.data.named import load
from keras_kd.data.sample import load_sample

__all__ = ["Dataset", "load", "load_sample"]
