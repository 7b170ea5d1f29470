"""What holds for every public loss. A new one needs a formula in reference/formulas.py."""

import doctest
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd import losses

NAMES = [name for name in losses.__all__ if name != "DistillationLoss"]
SHAPE = (6, 5)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    return getattr(losses, name)()


@pytest.fixture
def formula(name, formulas):
    assert name in formulas.REFERENCES, f"{name} has no reference in tests/reference/formulas.py"
    return formulas.REFERENCES[name]


@pytest.fixture
def outputs():
    """Logits of a teacher and a student."""
    return np.random.default_rng(5).normal(scale=3.0, size=(2, *SHAPE)).astype("float32")


def test_the_value_is_the_mean_of_the_reference(loss, formula, outputs):
    assert float(loss.compute_loss(*outputs)) == pytest.approx(formula(*outputs).mean(), rel=1e-5)


def test_one_value_per_example(loss, formula, outputs):
    values = keras.ops.convert_to_numpy(loss.per_example(*outputs))
    np.testing.assert_allclose(values, formula(*outputs), rtol=1e-5)


def test_nothing_is_below_a_student_that_equals_its_teacher(loss, formula, outputs):
    teacher, _ = outputs
    least = float(loss.compute_loss(teacher, teacher))
    assert least == pytest.approx(formula(teacher, teacher).mean(), rel=1e-6, abs=1e-6)
    for seed in range(5):
        nudge = np.random.default_rng(seed).normal(scale=0.1, size=SHAPE).astype("float32")
        assert float(loss.compute_loss(teacher, teacher + nudge)) > least


def test_the_gradient_is_that_of_the_reference(loss, formula, formulas, outputs):
    teacher, student = outputs
    student = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(teacher, student)
    expected = formulas.gradient(lambda logits: formula(teacher, logits).mean(), student.numpy())
    np.testing.assert_allclose(tape.gradient(value, student), expected, rtol=1e-4, atol=1e-5)


def test_no_gradient_reaches_the_teacher(loss, outputs):
    teacher, student = (tf.constant(tensor) for tensor in outputs)
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        value = loss.compute_loss(teacher, student)
    gradients = tape.gradient(value, [teacher, student])
    assert gradients[0] is None
    assert float(tf.reduce_max(tf.abs(gradients[1]))) > 0.0


@pytest.mark.parametrize("size", [30.0, 1e3, 1e4])
def test_extreme_logits_are_exact(loss, formula, size):
    teacher = np.array([[size, -size, 0.0], [-size, size, size]], "float32")
    student = tf.constant(-teacher)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(teacher, student)
    assert float(value) == pytest.approx(formula(teacher, -teacher).mean(), rel=1e-5)
    gradient = tape.gradient(value, student).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


def test_the_order_of_the_batch_does_not_matter(loss, outputs):
    teacher, student = outputs
    backwards = loss.compute_loss(teacher[::-1], student[::-1])
    assert float(backwards) == pytest.approx(float(loss.compute_loss(teacher, student)), rel=1e-6)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_sample_weights_multiply_the_values(loss, formula, outputs, shape):
    weights = np.array([0.0, 1.0, 2.0, 0.5, 0.0, 3.0], "float32")
    value = loss.compute_loss(*outputs, sample_weight=weights.reshape(shape))
    assert float(value) == pytest.approx((weights * formula(*outputs)).mean(), rel=1e-5)


def test_a_mask_leaves_examples_out_even_if_they_are_nan(loss, formula, outputs):
    teacher, student = outputs.copy()
    teacher[4:] = np.nan
    mask = np.arange(6) < 4
    value = loss.compute_loss(teacher, student, mask=mask)
    assert float(value) == pytest.approx(formula(teacher[:4], student[:4]).mean(), rel=1e-5)


def test_masks_and_weights_per_position_of_a_sequence(loss, formula):
    teacher, student = np.random.default_rng(1).normal(size=(2, 2, 4, 5)).astype("float32")
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    weights = np.array([2.0, 0.5], "float32")
    expected = (formula(teacher, student) * weights[:, None] * mask).sum() / mask.sum()
    value = loss.compute_loss(teacher, student, sample_weight=weights, mask=mask)
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_a_mask_that_leaves_nothing_gives_0(loss, outputs):
    assert float(loss.compute_loss(*outputs, mask=np.zeros(6, bool))) == 0.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(loss, formula, outputs, dtype):
    teacher, student = (tf.cast(tensor, dtype) for tensor in outputs)
    value = loss.compute_loss(teacher, student)
    rounded = (tf.cast(tensor, "float32").numpy() for tensor in (teacher, student))
    assert value.dtype == "float32"
    assert float(value) == pytest.approx(formula(*rounded).mean(), rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_equals_eager(loss, outputs, jit_compile):
    weights = np.linspace(0.0, 1.0, 6, dtype="float32")
    compiled = tf.function(
        lambda teacher, student: loss.compute_loss(teacher, student, sample_weight=weights),
        jit_compile=jit_compile,
    )
    expected = float(loss.compute_loss(*outputs, sample_weight=weights))
    assert float(compiled(*map(tf.constant, outputs))) == pytest.approx(expected, rel=1e-6)


def test_its_configuration_round_trips(loss, name):
    arguments = inspect.signature(type(loss)).parameters
    changed = {"temperature": 7.0, "scale_by_temperature_squared": False, "activation": "sigmoid"}
    given = {key: value for key, value in changed.items() if key in arguments}
    original = type(loss)(outputs=["a"], **given)
    assert set(original.get_config()) == set(arguments)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(original))
    assert type(copy) is type(loss)
    assert copy.get_config() == original.get_config() == {"outputs": ["a"], **given}


def test_its_docstring_has_a_source_and_an_example_that_runs(loss, name):
    text = inspect.getdoc(type(loss))
    assert "Reference:" in text
    assert "loss = " in text
    tests = doctest.DocTestFinder(recurse=False).find(type(loss), name, globs=vars(losses).copy())
    assert sum(len(test.examples) for test in tests) > 0, f"{name} has no example"
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_it_works_in_keras_own_distiller(loss, name, teacher, student, examples, hard_loss):
    x, y = examples
    results = []
    for distiller_class in (keras.distillation.Distiller, keras_kd.Distiller):
        distiller = distiller_class(teacher, student, loss)
        distiller.compile("sgd", hard_loss, run_eagerly=True)
        # One batch: Keras' own gives a small last batch the weight of a whole one.
        results.append(distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True))
    for log in ("total_loss", "student_loss", "distillation_loss"):
        assert results[0][log] == pytest.approx(results[1][log], rel=1e-5)


def test_every_reference_belongs_to_a_public_loss(formulas):
    assert set(formulas.REFERENCES) == set(NAMES)
