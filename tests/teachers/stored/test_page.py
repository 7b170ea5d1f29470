"""The page about stored teachers: its code runs, one block after the other."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd

PAGE = Path(__file__).parents[3] / "docs" / "stored_teachers.md"
# Most of the time goes into compiling the steps of its distillers.
pytestmark = pytest.mark.slow
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)


def model():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.AveragePooling2D(4),
            keras.layers.Conv2D(4, 3, activation="relu", name="block"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What all blocks define together, and the last batches that each of them made."""
    sample = keras_kd.data.load_sample()
    space = {
        "keras": keras,
        "keras_kd": keras_kd,
        "np": np,
        "tf": tf,
        "teacher": model(),
        "student": model(),
        "x": sample.x_train[:300],
        "y": sample.y_train[:300],
        "x_test": sample.x_test[:100],
        "y_test": sample.y_test[:100],
        "batches made": [],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        for block in BLOCKS:
            space.pop("batches", None)
            exec(compile(block, str(PAGE), "exec"), space)
            if "batches" in space:
                space["batches made"].append([batch[1] for batch in space["batches"]])
        yield space


def test_all_blocks_run(names):
    assert len(BLOCKS) == 8
    ordered, keyed, augmented = names["batches made"]
    assert sum(map(len, ordered)) == sum(map(len, augmented)) == 300
    assert sum(map(len, keyed)) == 2 * int(np.sum(names["y"] < 5))


def test_the_content_of_the_stores(names):
    assert keras_kd.teachers.StoredTeacher("keyed.store").examples == 300
    assert keras_kd.teachers.StoredTeacher("augmented.store").versions == 4
    streamed = keras_kd.teachers.StoredTeacher("streamed.store")
    stored = keras_kd.teachers.StoredTeacher("predictions.store")
    np.testing.assert_array_equal(
        streamed.read(names["names"][[7]])["logits"], stored.read([7])["logits"]
    )
