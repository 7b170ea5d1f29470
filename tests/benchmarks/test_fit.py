import numpy as np
import pytest

from keras_kd.data import Splits
from keras_kd.search.teaching import Examples


@pytest.fixture(scope="module")
def script(scripts):
    return scripts("fit")


def row(seed, method, accuracy):
    return {
        "seed": seed,
        "budget": "64 KB",
        "method": method,
        "accuracy": accuracy,
        "bytes": 1000 + seed,
        "cpu_seconds": 10.0,
    }


def test_differences_are_those_of_the_same_seed(script):
    rows = [row(0, "found", 0.98), row(1, "found", 0.96), row(0, "random", 0.95)]
    rows.append(row(1, "random", 0.91))
    found, random = script.summarize(rows).rows
    # Differences of 3 and 5 points: their standard deviation is the root of 2.
    assert found[:5] == ("64 KB", "found", "2", "97.00 +- 1.00", "-")
    assert random[:5] == ("64 KB", "random", "2", "93.00 +- 2.00", "4.00 +- 1.00")


def test_each_seed_has_its_own_images(script):
    x = np.arange(50.0).reshape(50, 1)
    data = Splits("numbers", x, np.arange(50), x, np.arange(50), ("a",))
    first, second = (script.sample(data, 20, seed) for seed in (0, 1))
    assert len(set(first.y_train)) == 20
    assert set(first.y_train) != set(second.y_train)
    np.testing.assert_array_equal(first.x_train[:, 0], first.y_train)
    train, validation = script.parts(first, 15)
    assert isinstance(train, Examples)
    assert (len(train), len(validation)) == (15, 5)
    assert not set(train.y) & set(validation.y)
