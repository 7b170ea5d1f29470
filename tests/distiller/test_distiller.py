"""What a step computes: the total loss, its gradient, its logs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.losses import LogitsMSE, SoftTargets

LOGS = ["loss", "total_loss", "student_loss", "distillation_loss"]


class Biases(keras.Model):
    """Outputs its inputs plus a bias for each example, so that the bias's gradient is theirs."""

    def __init__(self, shape):
        super().__init__()
        self.bias = self.add_weight(shape=shape, initializer="zeros")

    def call(self, inputs):
        return inputs[..., 0] + self.bias


class Other(keras.Model):
    """Outputs the part of the inputs that the student does not see."""

    def call(self, inputs):
        return inputs[..., 1]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_value_and_gradient_equal_the_golden_numbers(reference_vectors, hard_loss, run_eagerly):
    case = {
        part: reference_vectors[f"seed_formula_T2_a0.5/{part}"]
        for part in ("teacher_0", "student_0", "y", "loss", "grad_0")
    }
    x = np.stack([case["student_0"], case["teacher_0"]], axis=-1).astype("float32")
    student = Biases((8, 10))
    distiller = keras_kd.Distiller(
        Other(),
        student,
        SoftTargets(2.0, scale_by_temperature_squared=False),
        student_loss_weight=0.5,
    )
    distiller.compile(
        keras.optimizers.SGD(1.0), hard_loss, run_eagerly=run_eagerly, jit_compile=False
    )
    logs = distiller.train_on_batch(x, case["y"], return_dict=True)
    assert logs["loss"] == pytest.approx(float(case["loss"]), rel=1e-5)
    np.testing.assert_allclose(
        -student.bias.numpy(), case["grad_0"], rtol=1e-5, atol=1e-5 * np.abs(case["grad_0"]).max()
    )


def test_logs_are_means_over_the_examples_with_an_uneven_last_batch(
    teacher, student, examples, hard_loss, formulas
):
    x, y = examples
    teacher_logits, student_logits = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    hard = formulas.cross_entropy(y, student_logits).mean()
    soft = (
        2.0 * formulas.soft_targets(teacher_logits, student_logits, 3.0).mean()
        + 0.5 * formulas.logits_mean_squared_error(teacher_logits, student_logits).mean()
    )
    distiller = keras_kd.Distiller(
        teacher, student, [SoftTargets(3.0), LogitsMSE()], [2.0, 0.5], student_loss_weight=0.3
    )
    distiller.compile(keras.optimizers.SGD(0.0), hard_loss, metrics=["accuracy"], jit_compile=False)
    history = distiller.fit(x, y, batch_size=8, verbose=0, validation_data=(x, y))
    expected = {
        "student_loss": hard,
        "distillation_loss": soft,
        "total_loss": 0.3 * hard + 0.7 * soft,
        "loss": 0.3 * hard + 0.7 * soft,
        "accuracy": (student_logits.argmax(axis=-1) == y).mean(),
    }
    expected |= {f"val_{name}": value for name, value in expected.items()}
    assert set(history.history) == set(expected)
    for name, value in expected.items():
        assert history.history[name] == [pytest.approx(value, rel=1e-5)], name


def test_defaults_are_those_of_the_literature(teacher, student):
    distiller = keras_kd.Distiller(teacher, student)
    (loss,) = distiller.distillation_losses
    assert isinstance(loss, SoftTargets)
    assert loss.temperature == 4.0
    assert distiller.distillation_loss_weights == [1.0]
    assert distiller.student_loss_weight == 0.5
    assert distiller.name == "distiller"
    assert type(distiller.teacher) is keras_kd.teachers.ModelTeacher
    assert distiller.teacher.model is teacher
    assert distiller.student is student


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_with_labels_alone_it_trains_as_keras_does(
    dense_model, teacher, examples, hard_loss, optimizer
):
    x, y = examples
    options = {"seed": 4, "batch_normalization": True, "kernel_regularizer": "l2"}
    alone, student = dense_model(**options), dense_model(**options)
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=1.0)
    results = []
    for model in (alone, distiller):
        model.compile(optimizer, hard_loss, metrics=["accuracy"])
        fitted = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        results.append(fitted.history)
    for ours, theirs in zip(student.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(results[1][name], results[0][name], rtol=1e-5)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_penalties_count_once_and_whole(dense_model, teacher, examples, hard_loss, run_eagerly):
    x, y = examples
    student = dense_model(
        seed=4,
        kernel_regularizer=keras.regularizers.L2(0.3),
        activity_regularizer=keras.regularizers.L1(0.2),
    )
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.25)
    distiller.compile(
        keras.optimizers.SGD(0.0), hard_loss, run_eagerly=run_eagerly, jit_compile=False
    )
    distiller.train_on_batch(x, y)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    student(x)
    # What Keras itself finds after one forward pass; older ones do not divide by the batch size.
    penalty = float(sum(student.losses))
    weighted = 0.25 * logs["student_loss"] + 0.75 * logs["distillation_loss"]
    assert logs["loss"] - weighted == pytest.approx(penalty, rel=1e-4)
    assert logs["total_loss"] == pytest.approx(logs["loss"])


def test_the_teacher_alone_needs_neither_labels_nor_a_loss(teacher, student, examples):
    x, _ = examples
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0)
    distiller.compile(keras.optimizers.Adam(0.05), jit_compile=False)
    history = distiller.fit(
        x, epochs=10, verbose=0, validation_data=tf.data.Dataset.from_tensors(x)
    )
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    assert set(history.history["student_loss"]) == {0.0}
    assert "val_loss" in history.history
    evaluated = distiller.evaluate(x, verbose=0, return_dict=True)
    assert evaluated["loss"] == pytest.approx(history.history["val_loss"][-1], rel=1e-4)


def test_labels_are_asked_for_where_they_count(teacher, student, examples, hard_loss):
    x, _ = examples
    distiller = keras_kd.Distiller(teacher, student)
    with pytest.raises(
        ValueError, match=r"Received loss=None with student_loss_weight=0.5.*To fix"
    ):
        distiller.compile("sgd")
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    with pytest.raises(ValueError, match=r"data without labels.*student_loss_weight=0 to learn"):
        distiller.fit(x, verbose=0)


def test_the_students_frozen_layers_stay(teacher, student, examples, hard_loss):
    student.get_layer("hidden").trainable = False
    frozen, _, kernel, _ = student.get_weights()
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, jit_compile=False)
    distiller.fit(*examples, verbose=0)
    np.testing.assert_array_equal(student.get_weights()[0], frozen)
    assert np.abs(student.get_weights()[2] - kernel).max() > 0


def test_a_student_that_is_frozen_whole_is_refused(teacher, student, examples, hard_loss):
    student.trainable = False
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    distiller.evaluate(*examples, verbose=0)
    with pytest.raises(ValueError, match=r"student 'student' without trainable weights.*To fix it"):
        distiller.fit(*examples, verbose=0)


def test_predict_and_call_give_the_students_outputs(teacher, student, examples):
    x, _ = examples
    distiller = keras_kd.Distiller(teacher, student)
    expected = student(x).numpy()
    np.testing.assert_allclose(distiller(x).numpy(), expected)
    distiller.compile("sgd", "mse")
    np.testing.assert_allclose(distiller.predict(x, batch_size=8, verbose=0), expected, rtol=1e-5)


def test_compute_loss_is_the_total_with_and_without_known_outputs(
    teacher, student, examples, hard_loss
):
    x, y = examples
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, jit_compile=False)
    expected = distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)["loss"]
    assert float(distiller.compute_loss(x, y)) == pytest.approx(expected)
    assert float(distiller.compute_loss(x, y, student(x))) == pytest.approx(expected)


def test_a_new_teacher_is_asked_from_then_on(dense_model, teacher, student, examples):
    x, _ = examples
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    before = distiller.evaluate(x, verbose=0, return_dict=True)["loss"]
    other = dense_model(seed=9)
    distiller.teacher = other
    assert distiller.teacher.model is other
    assert not other.trainable
    after = distiller.evaluate(x, verbose=0, return_dict=True)["loss"]
    expected = float(SoftTargets(4.0).compute_loss(other(x), student(x)))
    assert after == pytest.approx(expected, rel=1e-5)
    assert after != pytest.approx(before, rel=1e-2)


def test_two_students_in_sequence_learn_the_same(dense_model, teacher, examples, hard_loss):
    first, second = dense_model(seed=3), dense_model(seed=3)
    for student in (first, second):
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile("adam", hard_loss, jit_compile=False)
        distiller.fit(*examples, shuffle=False, verbose=0)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_teacher_that_xla_cannot_compile_is_refused_when_it_is_set(
    teacher, student, examples, hard_loss
):
    outside = keras_kd.teachers.NumpyFunction(lambda x: x[:, :3], (3,), name="outside")
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, jit_compile=True)
    with pytest.raises(ValueError, match="jit_compile=True with the teacher 'outside'"):
        distiller.teacher = outside
    assert distiller.teacher.model is teacher
    distiller.compile("sgd", hard_loss)
    distiller.teacher = outside
    assert not distiller.supports_jit
    distiller.teacher = teacher
    assert distiller.supports_jit
