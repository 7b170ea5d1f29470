"""A classification data set in memory, in its splits, and the sample of MNIST in the package."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Splits:
    """Images and labels for training and testing.

    Attributes:
        name: what the data set is called in tables and reports.
        x_train: training images, float32 in 0..1, shape (examples, height, width, channels).
        y_train: training labels, int64 class indices, shape (examples,).
        x_test: test images, like `x_train`.
        y_test: test labels, like `y_train`.
        class_names: one name per class, in the order of the indices.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]

    @property
    def number_of_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image: (height, width, channels)."""
        return self.x_train.shape[1:]

    def first(self, training: int | None = None, test: int | None = None) -> Splits:
        """The same data set with only its first examples; None keeps them all."""
        return replace(
            self,
            x_train=self.x_train[:training],
            y_train=self.y_train[:training],
            x_test=self.x_test[:test],
            y_test=self.y_test[:test],
        )


def from_bytes(
    name: str,
    training: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: tuple[str, ...],
) -> Splits:
    """Build a `Splits` from images with values in 0..255 and their labels."""
    (x_train, y_train), (x_test, y_test) = training, test
    return Splits(
        name=name,
        x_train=x_train.astype("float32") / 255,
        y_train=y_train.astype("int64"),
        x_test=x_test.astype("float32") / 255,
        y_test=y_test.astype("int64"),
        class_names=class_names,
    )


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
