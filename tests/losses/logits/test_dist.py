"""DIST: golden numbers, positions and weights as examples, constants correlate with nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import DIST


@pytest.mark.parametrize(
    ("case", "loss"), [("dist_b1_g1_T1", DIST()), ("dist_b2_g2_T4", DIST(4.0, 2.0, 2.0))]
)
def test_value_and_gradient_equal_the_golden_numbers(
    case, loss, reference_vectors, value_and_gradient
):
    teacher, student, expected, slope = (
        reference_vectors[f"{case}/{part}"] for part in ("teacher_0", "student_0", "loss", "grad_0")
    )
    value, gradient = value_and_gradient(loss, teacher, student)
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(3, 2), (7, 13), (3, 4, 5)])
def test_other_shapes_seeds_and_arguments(shape, seed, references, random_logits, assert_same):
    teacher, student = random_logits(shape, seed)
    arguments = np.random.default_rng(seed).uniform(0.5, 6.0, 3)
    assert_same(
        DIST(*arguments),
        teacher,
        student,
        lambda logits: references.dist(teacher, logits, *arguments),
    )


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_a_student_near_its_teacher_keeps_its_digits(
    temperature, references, random_logits, value_and_gradient
):
    # One minus a correlation near 1 would keep two of them.
    teacher, nudge = random_logits((8, 10), scale=1.0)
    student = (teacher + 0.01 * nudge).astype("float32")
    value, gradient = value_and_gradient(DIST(temperature), teacher, student)
    assert value == pytest.approx(references.dist(teacher, student, temperature), rel=1e-3)
    assert np.isfinite(gradient).all()
    value, gradient = value_and_gradient(DIST(temperature), teacher, teacher)
    assert value == 0.0
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_either_part_can_be_left_out(references, random_logits):
    teacher, student = random_logits((6, 5))
    for weights in ((1.0, 0.0), (0.0, 1.0), (0.5, 3.0)):
        value = float(DIST(1.0, *weights).compute_loss(teacher, student))
        assert value == pytest.approx(references.dist(teacher, student, 1.0, *weights), rel=1e-5)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e4, 1e30])
def test_extreme_logits_are_exact(size, references, value_and_gradient):
    teacher = np.array([[size, -size, 0.0], [-size, size, size], [0.0, 1.0, 0.5]], "float32")
    value, gradient = value_and_gradient(DIST(), teacher, -teacher)
    assert value == pytest.approx(references.dist(teacher, -teacher), rel=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("constant", [0.0, 3.3, -1e4])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_constants_correlate_with_nothing(classes, constant, random_logits, value_and_gradient):
    teacher, student = random_logits((4, classes))
    flat = np.full((4, classes), constant, "float32")
    for one, other in ((teacher, flat), (flat, student), (flat, flat)):
        value, gradient = value_and_gradient(DIST(), one, other)
        assert value == pytest.approx(2.0, rel=1e-6)
        assert np.abs(gradient).max() < 1.0
    # A student that says nothing yet is told which way to go.
    _, gradient = value_and_gradient(DIST(1.0, 1.0, 0.0), teacher, flat)
    np.testing.assert_array_equal(gradient.argmin(axis=-1), teacher.argmax(axis=-1))


def test_a_single_example_has_no_correlation_within_classes(references, random_logits):
    teacher, student = random_logits((1, 5))
    value = float(DIST().compute_loss(teacher, student))
    assert value == pytest.approx(references.dist(teacher, student), rel=1e-5)
    assert float(DIST(inter_weight=0.0).compute_loss(teacher, student)) == 1.0


@pytest.mark.parametrize("poison", [0.0, 1e4, np.nan])
def test_weight_0_leaves_an_example_out(poison, references, random_logits, value_and_gradient):
    teacher, student = random_logits((6, 5))
    teacher[4:], student[4:] = poison, -poison
    expected = references.dist(teacher[:4], student[:4])
    present = np.arange(6) < 4
    weights = present.astype("float32")
    for context, factor in (
        ({"sample_weight": weights}, 4 / 6),
        ({"sample_weight": 3.0 * weights[:, None]}, 3.0 * 4 / 6),
        ({"mask": present}, 1.0),
        ({"mask": present[:, None], "sample_weight": np.full(6, 0.5)}, 0.5),
    ):
        value, gradient = value_and_gradient(DIST(), teacher, student, **context)
        assert value == pytest.approx(factor * expected, rel=1e-5)
        np.testing.assert_array_equal(gradient[4:], 0.0)
        assert np.isfinite(gradient).all()


def test_an_example_of_twice_the_weight_is_two_examples(references, random_logits):
    teacher, student = random_logits((4, 5))
    twice = [0, 0, 1, 2, 3]
    value = DIST().compute_loss(teacher, student, sample_weight=np.array([2.0, 1.0, 1.0, 1.0]))
    # 5 / 4 is the mean weight. Doubled examples count like any others, but for the epsilon.
    expected = 5 / 4 * references.dist(teacher[twice], student[twice])
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_nothing_left_gives_0(random_logits, value_and_gradient):
    teacher, student = random_logits((3, 5))
    for context in ({"mask": np.zeros(3, bool)}, {"sample_weight": np.zeros(3)}):
        value, gradient = value_and_gradient(DIST(), teacher, student, **context)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, 0.0)


def test_masks_and_weights_of_positions(references, random_logits):
    teacher, student = random_logits((2, 3, 5))
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    expected = references.dist(teacher[mask], student[mask])
    for given in (mask, mask[..., None]):
        value = DIST().compute_loss(teacher, student, mask=given)
        assert float(value) == pytest.approx(expected, rel=1e-5)
    value = DIST().compute_loss(teacher, student, mask=mask, sample_weight=np.array([1.0, 0.0]))
    expected = 2 / 3 * references.dist(teacher[0, :2], student[0, :2])
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_survives_compilation(jit_compile, random_logits, value_and_gradient):
    teacher, student = map(tf.constant, random_logits((6, 5)))
    weights = tf.constant([1.0, 2.0, 0.0, 1.0, 0.5, 1.0])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def compiled(student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = DIST(2.0).compute_loss(teacher, student, sample_weight=weights)
        return value, tape.gradient(value, student)

    expected, slope = value_and_gradient(DIST(2.0), teacher, student, sample_weight=weights)
    value, gradient = compiled(student)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_probabilities_are_compared_by_their_logits(random_logits):
    teacher, student = random_logits((4, 5))
    value = DIST().compute_loss(keras.ops.softmax(teacher), keras.ops.softmax(student))
    assert float(value) == float(DIST().compute_loss(teacher, student))


def test_outputs_that_are_no_distribution_over_classes(random_logits):
    with pytest.raises(ValueError, match=r"DIST, whose units are independent.*SoftTargets"):
        DIST().compute_loss(*random_logits((4, 1)))


@pytest.mark.parametrize("argument", ["inter_weight", "intra_weight"])
def test_weights_out_of_range(argument):
    with pytest.raises(ValueError, match=rf"Received {argument}=-1.0.*at least 0.*To fix it"):
        DIST(**{argument: -1.0})


def test_the_temperature_can_be_a_schedule(random_logits):
    teacher, student = random_logits((4, 5))
    loss = DIST(temperature=lambda step: 2 * step + 1)
    value = float(loss.compute_loss(teacher, student, step=3))
    assert value == pytest.approx(float(DIST(7.0).compute_loss(teacher, student)), rel=1e-6)
