"""Directions and distances where there are none."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import geometry


def gradient(function, vectors):
    vectors = tf.constant(vectors)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        value = tf.reduce_sum(function(vectors)[..., :1])
    return tape.gradient(value, vectors).numpy()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e30])
def test_directions_have_length_1_whatever_the_scale(scale):
    vectors = (scale * np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]])).astype("float32")
    expected = [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]
    np.testing.assert_allclose(geometry.directions(vectors), expected, rtol=1e-6)
    np.testing.assert_allclose(
        gradient(geometry.directions, vectors) * scale,
        [[0.64 / 5, -0.48 / 5], [0.0, 0.0], [0.0, 0.0]],
        rtol=1e-5,
        atol=1e-7,
    )


def test_the_gradient_of_a_length_of_0_is_0():
    vectors = np.array([[3.0, 4.0], [0.0, 0.0]], "float32")
    np.testing.assert_allclose(geometry.lengths(vectors), [5.0, 0.0])
    np.testing.assert_allclose(
        gradient(lambda given: geometry.lengths(given)[:, None], vectors), [[0.6, 0.8], [0.0, 0.0]]
    )


def test_rescaling_nothing_gives_zeros():
    np.testing.assert_array_equal(geometry.rescale(np.zeros((2, 3), "float32")), np.zeros((2, 3)))
    np.testing.assert_allclose(geometry.rescale(np.array([[-4.0, 2.0]])), [[-1.0, 0.5]])
