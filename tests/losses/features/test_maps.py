"""Pooling, norms, masks of whole maps."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import AttentionTransfer
from keras_kd.losses.features import maps


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 8, 8, 3), (4, 4)),
        ((2, 7, 5, 3), (3, 2)),
        ((2, 3, 2, 1), (5, 4)),
        ((2, 9, 2), (4,)),
        ((2, 4, 5, 6, 2), (3, 5, 1)),
    ],
)
def test_pooling(shape, size, references):
    features = np.random.default_rng(0).normal(size=shape).astype("float32")
    pooled = maps.pooled(features, size)
    assert pooled.shape == (shape[0], *size, shape[-1])
    np.testing.assert_allclose(pooled, references.pooled(features, size), atol=1e-6)


def test_windows_overlap_where_sizes_do_not_divide():
    pooled = maps.pooled(np.arange(5.0).reshape(1, 5, 1), (3,))
    np.testing.assert_allclose(np.ravel(pooled), [0.5, 2.0, 3.5])


def test_each_axis_is_pooled_to_the_smaller():
    first, second = maps.same_size(np.ones((1, 8, 3, 2)), np.ones((1, 4, 6, 5)))
    assert first.shape == (1, 4, 3, 2)
    assert second.shape == (1, 4, 3, 5)


def test_a_size_that_is_not_known_is_refused():
    @tf.function(input_signature=[tf.TensorSpec((None, None, 3))])
    def step(features):
        return AttentionTransfer().compute_loss(features, features)

    with pytest.raises(
        ValueError, match=r"shape \(None, None, 3\).*numbers of positions are known.*fixed size"
    ):
        step(tf.ones((2, 4, 3)))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_norms_neither_overflow_nor_vanish(scale):
    vectors = tf.constant([[3.0, 4.0], [0.0, 0.0]]) * scale
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        unit = maps.unit(vectors, axis=-1)
    expected = np.array([[0.6, 0.8], [0.0, 0.0]])
    # What is shorter than the least norm is divided by that.
    np.testing.assert_allclose(unit, expected * min(1.0, 5.0 * scale / 1e-12), rtol=1e-5)
    assert np.isfinite(tape.gradient(unit, vectors)).all()


def test_the_gradient_of_a_unit_vector():
    vectors, upstream = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    vectors[1, 2] = 0.0
    tensor = tf.constant(vectors)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        unit = maps.unit(tensor, axis=-1)
    gradient = tape.gradient(unit, tensor, tf.constant(upstream))
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    norms[1, 2] = np.inf
    units = vectors / norms
    expected = (upstream - units * np.sum(units * upstream, axis=-1, keepdims=True)) / norms
    np.testing.assert_allclose(unit, units, rtol=1e-12)
    # What has no direction has no gradient either.
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-14)


def test_the_mask_of_a_shorter_student_leaves_the_teacher_as_it_is():
    teacher = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    student = np.random.default_rng(1).normal(size=(2, 3, 3)).astype("float32")
    mask = np.array([[True, True, False], [True, True, True]])
    zeroed = np.where(mask[..., None], student, 0.0)
    loss = AttentionTransfer()
    assert float(loss.compute_loss(teacher, student, mask=mask)) == pytest.approx(
        float(loss.compute_loss(teacher, zeroed)), rel=1e-6
    )
