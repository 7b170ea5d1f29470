"""The formulas on outputs: golden numbers, other shapes and seeds, the recognised activations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.losses import LogitsMSE, SoftCrossEntropy, SoftTargets

CASES = {
    "soft_target_T1": SoftTargets(1.0),
    "soft_target_T4": SoftTargets(4.0),
    "soft_target_T20": SoftTargets(20.0),
    "soft_cross_entropy_T4": SoftCrossEntropy(4.0),
    "mse_logits": LogitsMSE(),
}


def value_and_gradient(loss, teacher, student, **context):
    teacher, student = tf.constant(teacher), tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(teacher, student, **context)
    return float(value), tape.gradient(value, student).numpy()


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_equal_the_golden_numbers(case, reference_vectors):
    teacher = reference_vectors[f"{case}/teacher_0"].astype("float32")
    student = reference_vectors[f"{case}/student_0"].astype("float32")
    value, gradient = value_and_gradient(CASES[case], teacher, student)
    expected = reference_vectors[f"{case}/grad_0"]
    assert value == pytest.approx(float(reference_vectors[f"{case}/loss"]), rel=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 2), (7, 13), (3, 4, 5)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_other_shapes_seeds_and_temperatures(formulas, shape, seed, activation):
    random = np.random.default_rng(seed)
    teacher, student = random.normal(scale=4.0, size=(2, *shape)).astype("float32")
    temperature = float(random.uniform(0.5, 10.0))
    for loss, formula in (
        (SoftTargets(temperature, activation=activation), formulas.soft_targets),
        (SoftCrossEntropy(temperature, activation=activation), formulas.soft_cross_entropy),
    ):

        def expected(logits, formula=formula):
            return formula(teacher.astype("float64"), logits, temperature, activation).mean()

        value, gradient = value_and_gradient(loss, teacher, student)
        assert value == pytest.approx(expected(student.astype("float64")), rel=1e-5)
        slope = formulas.gradient(expected, student)
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5 * np.abs(slope).max())


@pytest.mark.parametrize("loss_class", [SoftTargets, SoftCrossEntropy])
def test_the_plain_form_leaves_out_the_square_of_the_temperature(loss_class, reference_vectors):
    teacher, student = (
        reference_vectors[f"soft_target_T4/{side}_0"] for side in ("teacher", "student")
    )
    scaled = loss_class(5.0).compute_loss(teacher, student)
    plain = loss_class(5.0, scale_by_temperature_squared=False).compute_loss(teacher, student)
    assert float(scaled) == pytest.approx(25.0 * float(plain))


def test_soft_targets_differ_from_soft_cross_entropy_by_the_entropy_of_the_teacher(
    formulas, reference_vectors
):
    teacher, student = (
        reference_vectors[f"soft_target_T4/{side}_0"] for side in ("teacher", "student")
    )
    log_p = formulas.soften(teacher, 4.0)
    entropy = -16.0 * (np.exp(log_p) * log_p).sum(axis=-1).mean()
    difference = SoftCrossEntropy(4.0).compute_loss(teacher, student) - SoftTargets(
        4.0
    ).compute_loss(teacher, student)
    assert float(difference) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_a_small_divergence_keeps_its_digits(formulas, scale):
    # At T = 20 the distributions are almost uniform: the plain sum keeps two digits of the value.
    teacher, student = (
        np.random.default_rng(0).normal(scale=scale, size=(2, 8, 10)).astype("float32")
    )
    value, gradient = value_and_gradient(SoftTargets(20.0), teacher, student)
    p, q = (np.exp(formulas.soften(logits, 20.0)) for logits in (teacher, student))
    assert value == pytest.approx(formulas.soft_targets(teacher, student, 20.0).mean(), rel=1e-5)
    np.testing.assert_allclose(gradient, 20.0 * (q - p) / 8, rtol=1e-4, atol=1e-6 * scale)


EXTREMES = [30.0, 1e3, 1e4]


@pytest.mark.parametrize("size", EXTREMES)
def test_extreme_logits_have_the_exact_divergence_and_a_gradient(size):
    teacher = np.array([[size, -size]], "float32")
    value, gradient = value_and_gradient(SoftTargets(1.0), teacher, -teacher)
    assert value == pytest.approx(2.0 * size, rel=1e-6)
    np.testing.assert_allclose(gradient, [[-1.0, 1.0]], atol=1e-6)


def test_keras_own_loss_is_wrong_there_which_is_why_this_one_exists():
    teacher = np.array([[30.0, -30.0]], "float32")
    theirs = keras.distillation.LogitsDistillation(1.0, loss=keras.losses.KLDivergence())
    assert float(theirs.compute_loss(teacher, -teacher)) == pytest.approx(16.1, abs=0.1)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("loss", [SoftTargets(3.0), SoftCrossEntropy(3.0), LogitsMSE()])
def test_probabilities_are_compared_by_their_logits(name, loss, reference_vectors):
    teacher, student = (
        reference_vectors[f"mse_logits/{side}_0"].astype("float32")
        for side in ("teacher", "student")
    )
    activation = getattr(keras.ops, name)
    expected = value_and_gradient(
        loss if isinstance(loss, LogitsMSE) else type(loss)(3.0, activation=name), teacher, student
    )
    for softened_teacher, softened_student in ((True, True), (True, False), (False, True)):
        logits = tf.constant(student)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss.compute_loss(
                activation(teacher) if softened_teacher else teacher,
                activation(logits) if softened_student else logits,
            )
        assert float(value) == expected[0]
        np.testing.assert_array_equal(tape.gradient(value, logits).numpy(), expected[1])


def test_a_single_unit_means_on_or_off(formulas):
    teacher, student = np.array([[2.0], [-1.0]]), np.array([[0.5], [3.0]])
    expected = formulas.soft_targets(teacher, student, 2.0, "sigmoid").mean()
    assert float(SoftTargets(2.0).compute_loss(teacher, student)) == pytest.approx(expected)


def test_a_softmax_and_a_sigmoid_do_not_fit():
    logits = np.array([[1.0, 2.0, 4.0]], "float32")
    with pytest.raises(
        ValueError,
        match=r"teacher that ends in a softmax and a student that ends in a sigmoid.*To fix",
    ):
        SoftTargets().compute_loss(keras.ops.softmax(logits), keras.ops.sigmoid(logits))


def test_classes_on_another_axis_are_refused():
    logits = np.random.default_rng(0).normal(scale=3.0, size=(2, 3, 4)).astype("float32")
    probabilities = keras.ops.softmax(logits, axis=1)
    with pytest.raises(ValueError, match="softmax over another axis than the last"):
        SoftTargets().compute_loss(probabilities, probabilities)

    @tf.function
    def traced(tensor):
        return SoftTargets().compute_loss(tensor, keras.ops.softmax(tensor, axis=1))

    with pytest.raises(ValueError, match="softmax over another axis than the last"):
        traced(logits)


def test_two_classes_with_opposite_logits_are_told_apart():
    # A sigmoid of z and -z sums to one as a softmax does; only the values tell.
    logits = np.array([[1.3, -1.3]], "float32")
    sigmoid = keras.ops.sigmoid(logits)
    undecided = keras.ops.sigmoid(np.zeros((1, 2), "float32"))
    value = SoftTargets(1.0).compute_loss(sigmoid, undecided)
    same = SoftTargets(1.0, activation="sigmoid").compute_loss(logits, np.zeros_like(logits))
    assert float(value) == float(same)


def test_a_teacher_in_double_precision_can_teach():
    teacher = tf.constant([[1.0, 2.0]], "float64")
    value = SoftTargets(1.0).compute_loss(teacher, tf.constant([[2.0, 1.0]], "float32"))
    assert value.dtype == "float32"


@pytest.mark.parametrize("loss_class", [SoftTargets, SoftCrossEntropy])
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperatures_out_of_range(loss_class, temperature):
    with pytest.raises(
        ValueError, match=r"Received temperature=.*a finite number above 0.*To fix it"
    ):
        loss_class(temperature)


@pytest.mark.parametrize("temperature", ["4", None, True])
def test_temperatures_that_are_no_number(temperature):
    with pytest.raises(TypeError, match=r"Received temperature=.*a finite number above 0"):
        SoftTargets(temperature)


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"activation='relu'.*'auto', 'softmax', 'sigmoid'"):
        SoftTargets(activation="relu")
