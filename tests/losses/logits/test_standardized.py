"""StandardizedSoftTargets: golden numbers, any scale of logits, none at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import StandardizedSoftTargets


def test_value_and_gradient_equal_the_golden_numbers(reference_vectors, value_and_gradient):
    teacher, student, expected, slope = (
        reference_vectors[f"logit_standardized_kd_T2/{part}"]
        for part in ("teacher_0", "student_0", "loss", "grad_0")
    )
    value, gradient = value_and_gradient(StandardizedSoftTargets(), teacher, student)
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 2), (7, 13), (3, 4, 5)])
def test_other_shapes_seeds_and_temperatures(shape, seed, references, random_logits, assert_same):
    teacher, student = random_logits(shape, seed)
    temperature = float(np.random.default_rng(seed).uniform(0.5, 6.0))
    assert_same(
        StandardizedSoftTargets(temperature),
        teacher,
        student,
        lambda logits: references.standardized_soft_targets(teacher, logits, temperature).mean(),
    )


def test_neither_scale_nor_offset_of_the_logits_counts(random_logits):
    teacher, student = random_logits((6, 5))
    expected = float(StandardizedSoftTargets().compute_loss(teacher, student))
    for scale, offset in ((1e-3, 0.0), (1.0, 50.0), (1e4, -1e4)):
        value = StandardizedSoftTargets().compute_loss(teacher, scale * student + offset)
        assert float(value) == pytest.approx(expected, rel=1e-4)
    same = StandardizedSoftTargets().compute_loss(teacher, 3.0 * teacher + 1.0)
    assert float(same) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e4, 1e15])
def test_extreme_logits_are_exact(size, references, value_and_gradient):
    teacher = np.array([[size, -size, 0.0], [-size, size, size]], "float32")
    value, gradient = value_and_gradient(StandardizedSoftTargets(), teacher, -teacher)
    expected = references.standardized_soft_targets(teacher, -teacher).mean()
    assert value == pytest.approx(expected, rel=1e-5)
    # The larger the logits, the less one of them moves their directions.
    unit_value, unit_gradient = value_and_gradient(
        StandardizedSoftTargets(), teacher / size, -teacher / size
    )
    assert value == pytest.approx(unit_value, rel=1e-5)
    np.testing.assert_allclose(gradient * size, unit_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("constant", [0.0, 3.3, -1e4])
def test_constant_logits_are_finite(constant, references, random_logits, value_and_gradient):
    teacher, student = random_logits((2, 7))
    flat = np.full((2, 7), constant, "float32")
    for one, other in ((teacher, flat), (flat, student), (flat, flat)):
        value, gradient = value_and_gradient(StandardizedSoftTargets(), one, other)
        zeros = (np.zeros_like(one) if logits is flat else logits for logits in (one, other))
        expected = references.standardized_soft_targets(*zeros).mean()
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert np.abs(gradient).max() < 1.0
    # A student that says nothing yet is told which way to go.
    _, gradient = value_and_gradient(StandardizedSoftTargets(), teacher, flat)
    np.testing.assert_array_equal(gradient.argmin(axis=-1), teacher.argmax(axis=-1))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_survives_compilation(jit_compile, random_logits, value_and_gradient):
    teacher, student = map(tf.constant, random_logits((6, 5)))
    student = tf.concat([student[:5], tf.zeros((1, 5))], axis=0)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def compiled(student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = StandardizedSoftTargets().compute_loss(teacher, student)
        return value, tape.gradient(value, student)

    expected, slope = value_and_gradient(StandardizedSoftTargets(), teacher, student)
    value, gradient = compiled(student)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_probabilities_are_compared_by_their_logits(random_logits):
    teacher, student = random_logits((4, 5))
    expected = StandardizedSoftTargets().compute_loss(teacher, student)
    value = StandardizedSoftTargets().compute_loss(
        keras.ops.softmax(teacher), keras.ops.softmax(student)
    )
    assert float(value) == float(expected)


def test_a_single_unit_has_no_deviation(random_logits):
    with pytest.raises(ValueError, match="StandardizedSoftTargets, whose units are"):
        StandardizedSoftTargets().compute_loss(*random_logits((4, 1)))
