import numpy as np
import pytest

from keras_kd.data import load_sample
from keras_kd.data.splits import SAMPLE_PATH


@pytest.fixture(scope="module")
def sample():
    return load_sample()


def test_shapes_types_and_range(sample):
    assert sample.x_train.shape == (12_000, 28, 28, 1)
    assert sample.x_test.shape == (2_000, 28, 28, 1)
    assert sample.image_shape == (28, 28, 1)
    for images in (sample.x_train, sample.x_test):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0.0, 1.0)
    assert sample.number_of_classes == 10


def test_every_digit_is_there_equally_often(sample):
    np.testing.assert_array_equal(np.bincount(sample.y_train), [1200] * 10)
    np.testing.assert_array_equal(np.bincount(sample.y_test), [200] * 10)


def test_classes_are_mixed_so_that_a_part_is_a_sample_too(sample):
    part = sample.first(training=200, test=100)
    assert part.x_train.shape == (200, 28, 28, 1)
    assert len(part.y_test) == 100
    assert np.bincount(part.y_train, minlength=10).min() > 5


def test_no_test_image_is_a_training_image(sample):
    training = {image.tobytes() for image in sample.x_train}
    assert not any(image.tobytes() in training for image in sample.x_test)


def test_the_file_is_small_and_says_where_it_comes_from():
    assert SAMPLE_PATH.stat().st_size < 3_000_000
    note = SAMPLE_PATH.with_suffix(".md").read_text(encoding="utf-8")
    for word in ("LeCun", "Cortes", "Burges", "ShareAlike 3.0"):
        assert word in note
