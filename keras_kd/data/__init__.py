"""Data: bundled digits, TFDS, NumPy files, and unlabeled examples."""

from typing import TYPE_CHECKING

from keras_kd._lazy import lazy_names

if TYPE_CHECKING:
    from keras_kd.data.examples import load_examples
    from keras_kd.data.in_memory import to_arrays
    from keras_kd.data.mixing import mix
    from keras_kd.data.munging import munge
    from keras_kd.data.named import load
    from keras_kd.data.splits import Splits, load_sample

__all__ = ["Splits", "load", "load_examples", "load_sample", "mix", "munge", "to_arrays"]

# A user's files are read before Keras is needed.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Splits": "splits",
        "load": "named",
        "load_examples": "examples",
        "load_sample": "splits",
        "mix": "mixing",
        "munge": "munging",
        "to_arrays": "in_memory",
    },
)
