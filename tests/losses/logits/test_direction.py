"""DirectionMatching: golden numbers, weights, and points where a root or a length is 0."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import DirectionMatching


def test_value_and_gradient_equal_the_golden_numbers(reference_vectors, value_and_gradient):
    teacher, student, expected, slope = (
        reference_vectors[f"skd_direction_t0.1/{part}"]
        for part in ("teacher_0", "student_0", "loss", "grad_0")
    )
    value, gradient = value_and_gradient(DirectionMatching(), teacher, student)
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(2, 2), (7, 13), (3, 4, 5), (16, 3)])
def test_other_shapes_seeds_and_arguments(shape, seed, references, random_logits, assert_same):
    teacher, student = random_logits(shape, seed)
    tikhonov = float(np.random.default_rng(seed).uniform(0.01, 1.0))
    assert_same(
        DirectionMatching(tikhonov),
        teacher,
        student,
        lambda logits: references.direction_matching(teacher, logits, tikhonov),
    )


def test_a_large_batch_keeps_its_digits(references, random_logits, value_and_gradient):
    teacher, student = random_logits((128, 10))
    value, gradient = value_and_gradient(DirectionMatching(0.01), teacher, student)
    expected = references.direction_matching(teacher, student, 0.01)
    assert value == pytest.approx(expected, rel=1e-6)
    # The gradient of the factorization itself is off by 1e-4 in float32.
    precise = tf.constant(student, "float64")
    with tf.GradientTape() as tape:
        tape.watch(precise)
        value = DirectionMatching(0.01).compute_loss(teacher.astype("float64"), precise)
    slope = tape.gradient(value, precise).numpy()
    assert float(value) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5 * np.abs(slope).max())


def test_a_student_near_its_teacher_keeps_its_digits(references, random_logits):
    teacher, nudge = random_logits((8, 10))
    student = (teacher + 1e-3 * nudge).astype("float32")
    value = float(DirectionMatching().compute_loss(teacher, student))
    assert value == pytest.approx(references.direction_matching(teacher, student), rel=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_a_student_that_equals_its_teacher_has_neither_loss_nor_gradient(
    scale, random_logits, value_and_gradient
):
    teacher, _ = random_logits((6, 5), scale=scale)
    value, gradient = value_and_gradient(DirectionMatching(), teacher, teacher)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("size", [1e-30, 1e3, 1e30])
def test_the_length_of_the_logits_does_not_count(size, references, random_logits):
    teacher, student = random_logits((6, 5))
    value = float(DirectionMatching().compute_loss(size * teacher, student / size))
    assert value == pytest.approx(references.direction_matching(teacher, student), rel=1e-5)


def test_extreme_logits_are_exact(references, value_and_gradient):
    teacher = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 1e4, -1e4]], "float32")
    student = np.abs(teacher)
    value, gradient = value_and_gradient(DirectionMatching(), teacher, student)
    assert value == pytest.approx(references.direction_matching(teacher, student), rel=1e-5)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.0


def test_logits_without_a_direction_are_finite(random_logits, value_and_gradient):
    teacher, student = random_logits((4, 5))
    nothing = np.zeros((4, 5))
    half = np.concatenate([nothing[:2], student[2:]])
    for one, other in ((teacher, nothing), (nothing, student), (teacher, half)):
        value, gradient = value_and_gradient(DirectionMatching(), one, other)
        assert np.isfinite(value)
        assert 0.0 < value < 10.0
        assert np.abs(gradient).max() < 10.0


def test_equal_examples_are_finite(references, random_logits, value_and_gradient):
    teacher, student = (np.repeat(logits, 3, axis=0) for logits in random_logits((2, 5)))
    value, gradient = value_and_gradient(DirectionMatching(), teacher, student)
    assert value == pytest.approx(references.direction_matching(teacher, student), rel=1e-5)
    assert np.isfinite(gradient).all()


def test_a_single_example_has_no_relations(random_logits, value_and_gradient):
    value, gradient = value_and_gradient(DirectionMatching(), *random_logits((1, 5)))
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("poison", [0.0, 1e4, np.nan])
def test_weight_0_leaves_an_example_out(poison, references, random_logits, value_and_gradient):
    teacher, student = random_logits((6, 5))
    for index in (1, 4):
        teacher[index], student[index] = poison, -poison
    present = np.array([True, False, True, True, False, True])
    expected = references.direction_matching(teacher[present], student[present])
    weights = present.astype("float32")
    for context, factor in (
        ({"sample_weight": weights}, 4 / 6),
        ({"sample_weight": 3.0 * weights[:, None]}, 3.0 * 4 / 6),
        ({"mask": present}, 1.0),
        ({"mask": present[:, None], "sample_weight": np.full(6, 0.5)}, 0.5),
    ):
        value, gradient = value_and_gradient(DirectionMatching(), teacher, student, **context)
        assert value == pytest.approx(factor * expected, rel=1e-5)
        np.testing.assert_array_equal(gradient[~present], 0.0)
        assert np.isfinite(gradient).all()


def test_weights_count_examples_as_rows_and_as_columns(references, random_logits):
    # The weights 2 and 1 are three copies of 0.6, in sum the effective number of examples 9 / 5.
    # The covariance is divided by 1 less, but at least by 1.
    teacher, student = random_logits((2, 5))
    counts = [0, 0, 1]
    unit = [logits / np.linalg.norm(logits, axis=1, keepdims=True) for logits in (teacher, student)]
    gaps = unit[1] @ unit[1].T - unit[0] @ unit[0].T
    differences = gaps[np.ix_(counts, counts)] * np.sqrt(0.6)
    covariance = np.cov(differences, rowvar=False, ddof=0) * 1.8 + 0.1 * np.eye(3)
    squares = (differences @ np.linalg.inv(covariance) * differences).sum(axis=1)
    value = DirectionMatching().compute_loss(teacher, student, sample_weight=np.array([2.0, 1.0]))
    assert float(value) == pytest.approx(1.5 * np.sqrt(squares).mean(), rel=1e-5)


def test_nothing_left_gives_0(random_logits, value_and_gradient):
    teacher, student = random_logits((3, 5))
    for context in ({"mask": np.zeros(3, bool)}, {"sample_weight": np.zeros(3)}):
        value, gradient = value_and_gradient(DirectionMatching(), teacher, student, **context)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, 0.0)


def test_masked_positions_are_zeros_of_their_example(references, random_logits):
    teacher, student = random_logits((3, 2, 5))
    mask = np.array([[1, 1], [1, 0], [0, 1]], bool)
    kept = [np.where(mask[..., None], logits, 0.0) for logits in (teacher, student)]
    value = DirectionMatching().compute_loss(teacher, student, mask=mask)
    assert float(value) == pytest.approx(references.direction_matching(*kept), rel=1e-5)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("equal", [False, True])
def test_the_gradient_survives_compilation(jit_compile, equal, random_logits, value_and_gradient):
    teacher, student = map(tf.constant, random_logits((6, 5)))
    student = teacher if equal else student
    weights = tf.constant([1.0, 2.0, 0.0, 1.0, 0.5, 1.0])

    @tf.function(
        input_signature=[tf.TensorSpec((None, 5))], jit_compile=jit_compile, autograph=False
    )
    def compiled(student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = DirectionMatching().compute_loss(teacher, student, sample_weight=weights)
        return value, tape.gradient(value, student)

    expected, slope = value_and_gradient(
        DirectionMatching(), teacher, student, sample_weight=weights
    )
    value, gradient = compiled(student)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_compared_by_their_logits(activation, random_logits):
    teacher, student = random_logits((4, 5))
    activation = getattr(keras.ops, activation)
    value = DirectionMatching().compute_loss(activation(teacher), activation(student))
    assert float(value) == float(DirectionMatching().compute_loss(teacher, student))


@pytest.mark.parametrize("tikhonov", [0, -0.1, float("nan")])
def test_without_tikhonov_there_is_nothing_to_invert(tikhonov):
    with pytest.raises(ValueError, match=r"Received tikhonov=.*above 0.*To fix it"):
        DirectionMatching(tikhonov)
