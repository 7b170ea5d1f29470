"""The sample of MNIST that comes with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_kd.data.splits import Splits, from_bytes

SAMPLE_PATH = Path(__file__).with_name("mnist_sample.npz")


def load_sample() -> Splits:
    """Load 12 000 training and 2 000 test images of MNIST, as many of each digit.

    The images are real ones from LeCun, Cortes and Burges' MNIST; `mnist_sample.md` beside the
    data names the source and the licence.
    """
    with np.load(SAMPLE_PATH, allow_pickle=False) as arrays:
        return from_bytes(
            "MNIST sample",
            (arrays["x_train"], arrays["y_train"]),
            (arrays["x_test"], arrays["y_test"]),
            class_names=tuple("0123456789"),
        )
