"""The NumPy references of the losses on outputs, and what these tests have in common."""

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def references(formulas):
    """The losses on outputs in NumPy; see reference/logits.py."""
    return formulas.logits


@pytest.fixture
def value_and_gradient():
    """A function from a loss and outputs to the loss's value and its gradient in the student's."""

    def compute(loss, teacher, student, **context):
        teacher, student = (tf.constant(tensor, "float32") for tensor in (teacher, student))
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss.compute_loss(teacher, student, **context)
        gradient = tape.gradient(value, student)
        return float(value), tf.convert_to_tensor(gradient).numpy()

    return compute


@pytest.fixture
def assert_same(value_and_gradient, formulas):
    """Check a loss against a formula of the student's logits in float64, value and gradient."""

    def check(loss, teacher, student, formula, **context):
        value, gradient = value_and_gradient(loss, teacher, student, **context)
        assert value == pytest.approx(formula(student.astype("float64")), rel=1e-5, abs=1e-7)
        expected = formulas.gradient(formula, student)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * largest + 1e-8)

    return check


@pytest.fixture
def random_logits():
    """A function from a shape and a seed to logits of a teacher and a student."""

    def draw(shape, seed=0, scale=3.0):
        return np.random.default_rng(seed).normal(scale=scale, size=(2, *shape)).astype("float32")

    return draw
