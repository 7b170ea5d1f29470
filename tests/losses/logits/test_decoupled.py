"""DecoupledKD: golden numbers, labels in every form, logits of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import schedules
from keras_kd.losses import DecoupledKD, SoftTargets


@pytest.mark.parametrize(
    ("case", "loss"),
    [("dkd_a1_b8_T4", DecoupledKD()), ("dkd_a1_b2_T1", DecoupledKD(1.0, 1.0, 2.0))],
)
def test_value_and_gradient_equal_the_golden_numbers(
    case, loss, reference_vectors, value_and_gradient
):
    teacher, student, labels, expected, slope = (
        reference_vectors[f"{case}/{part}"]
        for part in ("teacher_0", "student_0", "y", "loss", "grad_0")
    )
    value, gradient = value_and_gradient(loss, teacher, student, y=labels)
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-6 * np.abs(slope).max())


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(1, 2), (7, 13), (3, 4, 5)])
def test_other_shapes_seeds_and_arguments(shape, seed, references, random_logits, assert_same):
    random = np.random.default_rng(seed)
    teacher, student = random_logits(shape, seed)
    labels = random.integers(0, shape[-1], shape[:-1])
    arguments = random.uniform(0.5, 6.0, 3)
    assert_same(
        DecoupledKD(*arguments),
        teacher,
        student,
        lambda logits: references.decoupled(teacher, logits, labels, *arguments).mean(),
        y=labels,
    )


def test_with_the_teachers_doubt_as_beta_it_is_soft_targets(references, random_logits):
    teacher, student = random_logits((1, 6))
    doubt = 1.0 - np.exp(references.soften(teacher, 2.0))[0, 3]
    decoupled = DecoupledKD(2.0, alpha=1.0, beta=doubt).compute_loss(teacher, student, y=[3])
    whole = SoftTargets(2.0).compute_loss(teacher, student)
    assert float(decoupled) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e4, 1e30])
def test_extreme_logits_are_exact(size, references, value_and_gradient):
    teacher = np.array([[size, -size, 0.0], [-size, size, size], [0.0, size, -size]], "float32")
    labels = np.array([0, 0, 2])
    loss = DecoupledKD(1.0)
    value, gradient = value_and_gradient(loss, teacher, -teacher, y=labels)
    expected = references.decoupled(teacher, -teacher, labels, 1.0).mean()
    assert value == pytest.approx(expected, rel=1e-6)
    # Of the first example: its target must rise, and of the others the last.
    assert gradient[0] == pytest.approx(np.array([-1.0, 9.0, -8.0]) / 3.0, abs=1e-5)
    assert np.isfinite(gradient).all()


def test_a_student_that_equals_its_teacher_has_no_loss(random_logits, value_and_gradient):
    for scale in (0.0, 1.0, 1e4):
        teacher, _ = random_logits((5, 4), scale=scale)
        value, gradient = value_and_gradient(DecoupledKD(), teacher, teacher, y=np.arange(5) % 4)
        assert value == 0.0
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (2, 3, 5)])
def test_labels_in_every_form(shape, random_logits):
    teacher, student = random_logits(shape)
    labels = np.arange(6).reshape(shape[:-1]) % 5
    expected = float(DecoupledKD().compute_loss(teacher, student, y=labels))
    forms = [labels[..., None], np.eye(5)[labels], np.eye(5)[labels] > 0.5, labels.tolist()]
    forms += [labels.astype(dtype) for dtype in ("int8", "uint8", "int32", "float32")]
    for form in forms:
        assert float(DecoupledKD().compute_loss(teacher, student, y=form)) == expected


@pytest.mark.parametrize("jit_compile", [False, True])
def test_labels_whose_batch_is_not_known_yet(jit_compile, random_logits):
    teacher, student = random_logits((6, 5))
    compiled = tf.function(
        DecoupledKD().compute_loss,
        input_signature=[tf.TensorSpec((None, 5)), tf.TensorSpec((None, 5))],
        jit_compile=jit_compile,
        autograph=False,
    )

    @tf.function(input_signature=[tf.TensorSpec((None,), "int64")], autograph=False)
    def of_labels(labels):
        return DecoupledKD().compute_loss(teacher, student, y=labels)

    with pytest.raises(ValueError, match="no labels for DecoupledKD"):
        compiled(teacher, student)
    labels = np.arange(6) % 5
    expected = DecoupledKD().compute_loss(teacher, student, y=labels)
    assert float(of_labels(labels)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_gradient_survives_compilation(jit_compile, random_logits, value_and_gradient):
    teacher, student = map(tf.constant, random_logits((6, 5)))
    labels = tf.constant(np.arange(6) % 5)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def compiled(student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = DecoupledKD().compute_loss(teacher, student, y=labels)
        return value, tape.gradient(value, student)

    expected, slope = value_and_gradient(DecoupledKD(), teacher, student, y=labels)
    value, gradient = compiled(student)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_a_label_that_is_no_class_is_not_taken_for_one(random_logits, value_and_gradient):
    teacher, student = random_logits((4, 5))
    for stray in (-1, 5, -100):
        labels = np.array([0, 1, 2, stray])
        value, _ = value_and_gradient(DecoupledKD(), teacher, student, y=labels)
        assert np.isnan(value)
        mask = labels == np.arange(4)
        value, gradient = value_and_gradient(DecoupledKD(), teacher, student, y=labels, mask=mask)
        assert value == float(DecoupledKD().compute_loss(teacher[:3], student[:3], y=labels[:3]))
        np.testing.assert_array_equal(gradient[3], 0.0)
        assert np.isfinite(gradient).all()
        weighted = DecoupledKD().compute_loss(teacher, student, y=labels, sample_weight=1.0 * mask)
        assert float(weighted) == pytest.approx(3 / 4 * value, rel=1e-6)


def test_labels_of_several_outputs(random_logits):
    teacher, student = (
        {"a": logits[:, :3], "b": logits[:, 3:]} for logits in random_logits((4, 7))
    )
    labels = {"a": np.array([0, 1, 2, 0]), "b": np.array([3, 2, 1, 0])}
    parts = [
        float(DecoupledKD(outputs=key).compute_loss(teacher, student, y=labels)) for key in "ab"
    ]
    both = float(DecoupledKD().compute_loss(teacher, student, y=labels))
    assert both == pytest.approx(sum(parts), rel=1e-6)
    assert parts[1] == float(DecoupledKD().compute_loss(teacher["b"], student["b"], y=labels["b"]))


def test_every_argument_can_be_a_schedule(random_logits):
    teacher, student = random_logits((4, 5))
    labels = np.arange(4)
    loss = DecoupledKD(
        temperature=lambda step: 1.0 + keras.ops.cast(step, "float32"),
        alpha=lambda step: 2 * step,
        beta=schedules.warm_up(steps=4, value=8.0),
    )
    assert set(loss.schedules) == {"temperature", "alpha", "beta"}
    for step, numbers in ((0, (1.0, 0.0, 0.0)), (2, (3.0, 4.0, 4.0))):
        expected = DecoupledKD(*numbers).compute_loss(teacher, student, y=labels)
        value = loss.compute_loss(teacher, student, y=labels, step=step)
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
    copy = DecoupledKD.from_config(DecoupledKD(beta=schedules.warm_up(steps=4)).get_config())
    assert float(copy.beta(2)) == 0.5


def test_probabilities_are_compared_by_their_logits(random_logits):
    teacher, student = random_logits((4, 5))
    expected = DecoupledKD().compute_loss(teacher, student, y=np.arange(4))
    value = DecoupledKD().compute_loss(
        keras.ops.softmax(teacher), keras.ops.softmax(student), y=np.arange(4)
    )
    assert float(value) == float(expected)


def test_missing_labels_are_asked_for(random_logits):
    with pytest.raises(
        ValueError, match=r"Received no labels for DecoupledKD.*one-hot.*pass y= to compute_loss"
    ):
        DecoupledKD().compute_loss(*random_logits((4, 5)))


@pytest.mark.parametrize("shape", [(), (3,), (4, 2), (4, 5, 1), (5, 4)])
def test_labels_that_do_not_fit(shape, random_logits):
    with pytest.raises(
        ValueError, match=r"labels of shape \(.*outputs of shape \(4, 5\).*\(4,\).*To fix it"
    ):
        DecoupledKD().compute_loss(*random_logits((4, 5)), y=np.zeros(shape, int))


def test_outputs_that_are_no_distribution_over_classes(random_logits):
    with pytest.raises(ValueError, match=r"DecoupledKD, whose units are independent.*Soft"):
        DecoupledKD().compute_loss(*random_logits((4, 1)), y=np.zeros(4, int))
    outputs = [keras.ops.sigmoid(logits) for logits in random_logits((4, 5))]
    with pytest.raises(ValueError, match="one distribution over at least two classes"):
        DecoupledKD().compute_loss(*outputs, y=np.zeros(4, int))


@pytest.mark.parametrize("argument", ["alpha", "beta"])
def test_weights_out_of_range(argument):
    with pytest.raises(ValueError, match=rf"Received {argument}=-1.0.*at least 0.*To fix it"):
        DecoupledKD(**{argument: -1.0})
    with pytest.raises(TypeError, match=rf"Received {argument}='8'"):
        DecoupledKD(**{argument: "8"})
