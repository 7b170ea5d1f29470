"""Makes the bundled sample of MNIST from the whole data set.

    python -m keras_kd.data.make_sample DATA_DIR

DATA_DIR is a TFDS data directory that holds `mnist`. The same data set gives the same sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from keras_kd._files import replacing
from keras_kd.data.named import load_arrays
from keras_kd.data.splits import SAMPLE_PATH

TRAINING_IMAGES_PER_CLASS = 1200
TEST_IMAGES_PER_CLASS = 200
SEED = 20260101


def balanced_subset(
    images: np.ndarray, labels: np.ndarray, per_class: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `per_class` examples of each class, in random order."""
    chosen = np.concatenate(
        [
            generator.choice(np.flatnonzero(labels == label), per_class, replace=False)
            for label in np.unique(labels)
        ]
    )
    chosen = generator.permutation(chosen)
    return images[chosen], labels[chosen].astype("uint8")


def make_sample(data_dir: str | Path, path: str | Path = SAMPLE_PATH) -> None:
    """Write the sample drawn from the TFDS data in `data_dir` to `path`."""
    generator = np.random.default_rng(SEED)
    (x_train, y_train), (x_test, y_test) = load_arrays("mnist", data_dir)
    x_train, y_train = balanced_subset(x_train, y_train, TRAINING_IMAGES_PER_CLASS, generator)
    x_test, y_test = balanced_subset(x_test, y_test, TEST_IMAGES_PER_CLASS, generator)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the bundled sample of MNIST.")
    parser.add_argument("data_dir", help="a TFDS data directory that holds mnist")
    make_sample(parser.parse_args().data_dir)
