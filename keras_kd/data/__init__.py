"""Data: bundled digits, TFDS, a user's NumPy files, and examples that have no labels."""

from keras_kd.data.dataset import Dataset
from keras_kd.data.examples import load_examples
from keras_kd.data.mixing import mix
from keras_kd.data.munge import munge
from keras_kd.data.named import load
from keras_kd.data.sample import load_sample

__all__ = ["Dataset", "load", "load_examples", "load_sample", "mix", "munge"]
