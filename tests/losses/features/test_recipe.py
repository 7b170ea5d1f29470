"""The logarithm of the distance over the batch."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import SimpleRecipe


@pytest.mark.parametrize("exponent", [1, 1.5, 4])
def test_equal_features_are_finite(exponent):
    features = tf.ones((3, 4))
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = SimpleRecipe(exponent=exponent).compute_loss(np.ones((3, 4)), features)
    assert float(value) == pytest.approx(np.log(1e-12), rel=1e-5)
    assert (tape.gradient(value, features).numpy() == 0.0).all()


def test_a_batch_twice_as_large_adds_log_2():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    loss = SimpleRecipe()
    value = float(loss.compute_loss(teacher, student))
    twice = float(loss.compute_loss(np.tile(teacher, (2, 1)), np.tile(student, (2, 1))))
    assert twice == pytest.approx(value + np.log(2.0), rel=1e-5)


def test_an_exponent_below_1_is_refused():
    with pytest.raises(ValueError, match=r"exponent=0.5.*at least 1.*such as 1 or 4"):
        SimpleRecipe(exponent=0.5)
