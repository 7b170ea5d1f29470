"""Students that compute a loss of their own."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import ops

import keras_kd
from keras_kd.losses import LogitsMSE

X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
Y = np.random.default_rng(1).normal(size=(12, 3)).astype("float32")


def make(flavour, methods, **options):
    """A functional model of a class with these methods."""
    library = {"keras": keras, "tf_keras": tf_keras}[flavour]
    cls = type("Own", (library.Model,), methods)
    library.utils.set_random_seed(1)
    inputs = library.Input((5,))
    outputs = library.layers.Dense(3, **options)(inputs)
    return cls(inputs, outputs)


def cube(self, x, y, y_pred, sample_weight=None, training=True):
    return ops.mean(ops.abs(y - y_pred) ** 3)


def cube_without_training(self, x, y, y_pred, sample_weight=None):
    return ops.mean(ops.abs(y - y_pred) ** 3)


def cube_by_name(self, *, y, y_pred, **kwargs):
    return ops.mean(ops.abs(y - y_pred) ** 3)


def with_penalties(self, x=None, y=None, y_pred=None, sample_weight=None):
    return ops.mean(ops.abs(y - y_pred) ** 3) + sum(self.losses)


def expected_cube(student):
    said = np.asarray(student(X), "float64")
    return np.mean(np.abs(Y - said) ** 3)


def distil(student, dense_model, weight=0.25, **options):
    teacher = dense_model(units=6, seed=1)
    distiller = keras_kd.Distiller(teacher, student, LogitsMSE(), student_loss_weight=weight)
    distiller.compile(keras.optimizers.SGD(0.1), **{"run_eagerly": True, **options})
    return distiller


def soft(distiller):
    teacher, student = distiller.teacher.model, distiller.student
    return np.mean((np.asarray(teacher(X), "float64") - np.asarray(student(X))) ** 2)


def logs_of(distiller, y=Y):
    return distiller.evaluate(X, y, verbose=0, return_dict=True)


@pytest.mark.fast_rows
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize(
    "method", [cube, cube_without_training, cube_by_name, with_penalties], ids=lambda x: x.__name__
)
def test_it_is_the_loss_on_labels_and_penalties_count_once(dense_model, flavour, method):
    student = make(flavour, {"compute_loss": method}, kernel_regularizer="l2")
    distiller = distil(student, dense_model)
    penalty = 0.01 * np.sum(np.asarray(student.get_weights()[0], "float64") ** 2)
    logs, own = logs_of(distiller), expected_cube(student)
    assert logs["student_loss"] == pytest.approx(own, rel=1e-5)
    total = 0.25 * own + 0.75 * soft(distiller) + penalty
    assert logs["total_loss"] == pytest.approx(total, rel=1e-5)
    assert len(student.losses) == 1
    assert type(student).__mro__[1] in (keras.Model, tf_keras.Model) or "Functional" in str(
        type(student).__mro__
    )
    before = student.get_weights()
    history = distiller.fit(X, Y, batch_size=12, verbose=0).history
    assert history["loss"][0] == pytest.approx(total, rel=1e-5)
    # One step of SGD, by the gradient of the formula.
    kernel, bias = (np.asarray(weight, "float64") for weight in before)
    said = X @ kernel + bias
    error = said - Y
    gradient = 0.25 * 3 * error * np.abs(error) / error.size
    gradient += 0.75 * 2 * (said - np.asarray(distiller.teacher.model(X))) / error.size
    step = X.T @ gradient + 0.02 * kernel
    np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * step, atol=1e-5)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_one_that_calls_keras_uses_the_loss_that_it_was_compiled_with(dense_model, flavour):
    library = {"keras": keras, "tf_keras": tf_keras}[flavour]

    class Doubled(library.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return 2.0 * super().compute_loss(x, y, y_pred, sample_weight)

    inputs = library.Input((5,))
    student = Doubled(inputs, library.layers.Dense(3, kernel_regularizer="l2")(inputs))
    distiller = distil(student, dense_model)
    with pytest.raises(ValueError, match=r"which is not compiled.*student\.compile\(loss="):
        logs_of(distiller)
    student.compile("sgd", "mse", run_eagerly=True)
    logs = logs_of(distil(student, dense_model))
    mse = np.mean((np.asarray(student(X)) - Y) ** 2)
    assert logs["student_loss"] == pytest.approx(2 * mse, rel=1e-5)


def test_a_compiled_student_without_one_uses_the_loss_of_its_compile(dense_model):
    student = dense_model()
    student.compile("sgd", "mae")
    logs = logs_of(distil(student, dense_model))
    mae = np.mean(np.abs(np.asarray(student(X)) - Y))
    assert logs["student_loss"] == pytest.approx(mae, rel=1e-5)


class Tracked(keras.Model):
    """As in the documentation of Keras: with trackers, one of them called as one of Keras'."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.trackers = [keras.metrics.Mean(name="loss"), keras.metrics.Mean(name="cubes")]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = ops.mean(ops.abs(y_pred if y is None else y - y_pred) ** 3)
        self.trackers[0].update_state(100.0)
        self.trackers[1].update_state(loss)
        return loss

    @property
    def metrics(self):
        return self.trackers


def test_its_metrics_are_in_the_logs_and_begin_anew(dense_model):
    inputs = keras.Input((5,))
    student = Tracked(inputs, keras.layers.Dense(3)(inputs))
    distiller = distil(student, dense_model, metrics=["mae"])
    for _ in range(2):
        logs, own = logs_of(distiller), expected_cube(student)
        assert logs["cubes"] == pytest.approx(own, rel=1e-5)
        assert logs["loss"] == pytest.approx(0.25 * own + 0.75 * soft(distiller), rel=1e-5)
    assert set(distiller.fit(X, Y, verbose=0).history) == {*logs}
    assert float(student.trackers[0].total) == 100.0
    assert distiller.metrics_names[0] == "loss"


def test_it_may_need_no_labels(dense_model):
    inputs = keras.Input((5,))
    student = Tracked(inputs, keras.layers.Dense(3)(inputs))
    distiller = distil(student, dense_model, run_eagerly=False)
    logs = distiller.evaluate(X, verbose=0, return_dict=True)
    own = np.mean(np.abs(np.asarray(student(X), "float64")) ** 3)
    assert logs["student_loss"] == logs["cubes"] == pytest.approx(own, rel=1e-5)
    distiller.fit(X, verbose=0)


def test_labels_inside_add_loss_count_once_with_the_teacher_alone(dense_model):
    class Endpoint(keras.layers.Layer):
        def call(self, said, labels):
            self.add_loss(ops.mean(ops.abs(said - labels)))
            return said

    inputs = {"x": keras.Input((5,), name="x"), "y": keras.Input((3,), name="y")}
    student = keras.Model(inputs, Endpoint()(keras.layers.Dense(3)(inputs["x"]), inputs["y"]))
    distiller = keras_kd.Distiller(
        dense_model(units=6, seed=1),
        student,
        LogitsMSE(),
        student_loss_weight=0,
        teacher_inputs="x",
        student_inputs=["x", "y"],
    )
    distiller.compile("sgd")
    logs = distiller.evaluate({"x": X, "y": Y}, verbose=0, return_dict=True)
    said = np.asarray(student({"x": X, "y": Y}))
    taught = np.mean((np.asarray(distiller.teacher.model(X)) - said) ** 2)
    assert logs["loss"] == pytest.approx(np.mean(np.abs(said - Y)) + taught, rel=1e-5)


def test_a_loss_beside_it_is_warned_about(dense_model):
    student = make("keras", {"compute_loss": cube})
    with pytest.warns(UserWarning, match=r"whose own compute_loss is not called.*loss=None"):
        distiller = distil(student, dense_model, loss="mse")
    mse = np.mean((np.asarray(student(X)) - Y) ** 2)
    assert logs_of(distiller)["student_loss"] == pytest.approx(mse, rel=1e-5)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_steps_of_its_own_are_warned_about(dense_model, flavour):
    def train_step(self, data):
        return {}

    student = make(flavour, {"train_step": train_step})
    with pytest.warns(UserWarning, match=r"whose train_step a Distiller does not call.*move"):
        distil(student, dense_model, loss="mse")


def test_missing_labels_are_refused(dense_model):
    student = make("keras", {"compute_loss": cube})
    distiller = keras_kd.Distiller(dense_model(), student, missing_label=-1)
    with pytest.raises(ValueError, match=r"missing_label=-1 for .* computes its loss itself"):
        distiller.compile("sgd")


@pytest.mark.parametrize("value", [None, np.zeros(3, "float32")], ids=["nothing", "vector"])
def test_what_is_no_scalar(dense_model, value):
    student = make("keras", {"compute_loss": lambda self, **kwargs: value})
    student.compile("sgd", "mse")
    distiller = distil(student, dense_model)
    with pytest.raises(ValueError, match=r"from compute_loss of the student .* a scalar"):
        logs_of(distiller)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_a_distillers_own_compute_loss_need_not_take_training(dense_model, flavour):
    base = keras_kd.Distiller
    student = dense_model()
    if flavour == "tf_keras":
        from keras_kd.distiller.tf_keras_distiller import TfKerasDistiller as base

        student = keras_kd.compression.to_tf_keras(student)

    class Tenfold(base):
        def compute_loss(self, x, y, y_pred, sample_weight=None):
            return 10.0 * super().compute_loss(x, y, y_pred, sample_weight)

    distiller = Tenfold(dense_model(units=6, seed=1), student)
    distiller.compile("sgd", "mse", run_eagerly=True)
    logs = logs_of(distiller)
    assert logs["loss"] == pytest.approx(10 * logs["total_loss"], rel=1e-5)
    distiller.fit(X, Y, verbose=0)
