"""Examples without a label: they count in the distillation losses only."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.distiller.labels import Labels

SPARSE = np.array([2, -1, 0, -1])
OUTPUTS = np.zeros((4, 3), "float32")


def one_hot(labels):
    table = np.vstack([np.eye(3), np.full((1, 3), np.nan)]).astype("float32")
    return table[labels]


INTEGER_ONE_HOT = np.array([[0, 0, 1], [-1, -1, -1], [1, 0, 0], [-1, -1, -1]])


@pytest.mark.parametrize("labels", [SPARSE, SPARSE[:, None], one_hot(SPARSE), INTEGER_ONE_HOT])
def test_missing_labels_weigh_nothing(labels):
    filled, weight = Labels(-1).for_metrics(labels, None, OUTPUTS)
    np.testing.assert_array_equal(weight, [1, 0, 1, 0])
    np.testing.assert_array_equal(filled[0], labels[0])
    assert np.all(np.asarray(filled[1]) == 0)


def test_the_mean_of_a_loss_is_over_the_labeled():
    _, weight = Labels(-1).for_loss(SPARSE, np.array([3.0, 1.0, 1.0, 1.0], "float32"), OUTPUTS)
    np.testing.assert_allclose(weight, [6.0, 0.0, 2.0, 0.0])


def test_no_label_at_all_is_no_loss():
    _, weight = Labels(-1).for_loss(np.array([-1, -1]), None, OUTPUTS[:2])
    np.testing.assert_array_equal(weight, [0.0, 0.0])


def test_labels_of_positions():
    labels, outputs = np.array([[1, -1, 0], [-1, 0, -1]]), np.zeros((2, 3, 5))
    _, weight = Labels(-1).for_metrics(labels, np.array([1.0, 2.0]), outputs)
    np.testing.assert_array_equal(weight, [[1, 0, 1], [0, 2, 0]])


def test_labels_of_several_outputs():
    y = {"a": SPARSE, "b": one_hot(SPARSE[::-1])}
    _, weight = Labels(-1).for_metrics(y, None, {"a": OUTPUTS, "b": OUTPUTS})
    np.testing.assert_array_equal(weight["b"], [0, 1, 0, 1])


def test_without_missing_labels_nothing_changes():
    y, weight = object(), object()
    assert Labels(None).for_loss(y, weight, OUTPUTS) == (y, weight)


@pytest.mark.parametrize("missing", ["-1", 0.5, True])
def test_what_cannot_stand_for_a_missing_label(missing):
    with pytest.raises(TypeError, match=r"Received missing_label=.*an integer.*missing_label=-1"):
        Labels(missing)


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_the_loss_on_labels_and_the_metrics_see_the_labeled_only(
    teacher, student, examples, flavour, kind
):
    x, y = examples
    partly = y.copy()
    partly[1::2] = -1
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    losses = keras.losses
    hard = losses.SparseCategoricalCrossentropy(from_logits=True)
    if kind == "one-hot":
        hard = losses.CategoricalCrossentropy(from_logits=True)
        y, partly = one_hot(y), one_hot(partly)
    plain = keras_kd.Distiller(teacher, student)
    mixed = keras_kd.Distiller(teacher, student, missing_label=-1)
    for distiller in (plain, mixed):
        distiller.compile("sgd", hard, metrics=["accuracy"])
    labeled = plain.evaluate(x[::2], y[::2], batch_size=20, verbose=0, return_dict=True)
    whole = plain.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    logs = mixed.evaluate(x, partly, batch_size=20, verbose=0, return_dict=True)
    assert logs["student_loss"] == pytest.approx(labeled["student_loss"], rel=1e-5)
    assert logs["accuracy"] == pytest.approx(labeled["accuracy"])
    assert logs["distillation_loss"] == pytest.approx(whole["distillation_loss"], rel=1e-5)


def test_training_on_mixed_batches(teacher, student, examples, hard_loss):
    x, y = examples
    data = keras_kd.data.mix((x[:6], y[:6]), x[6:], batch_size=8, seed=1)
    distiller = keras_kd.Distiller(teacher, student, missing_label=-1)
    distiller.compile("adam", hard_loss, metrics=["accuracy"])
    history = distiller.fit(data, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert np.isfinite(history["accuracy"]).all()


@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_a_loss_that_reads_labels_counts_the_labeled_only(teacher, student, examples, kind):
    x, y = examples
    partly = np.where(np.arange(20) % 2 == 0, y, -1)
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if kind == "one-hot":
        hard = keras.losses.CategoricalCrossentropy(from_logits=True)
        partly = one_hot(partly)
    distiller = keras_kd.Distiller(
        teacher, student, keras_kd.losses.DecoupledKD(), missing_label=-1
    )
    distiller.compile("sgd", hard)
    loss = keras_kd.losses.DecoupledKD()
    expected = float(loss.compute_loss(teacher(x[::2]), student(x[::2]), y=y[::2]))
    logs = distiller.evaluate(x, partly, batch_size=20, verbose=0, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)


def test_two_kinds_of_metrics_are_one_too_many(teacher, student, hard_loss):
    distiller = keras_kd.Distiller(teacher, student, missing_label=-1)
    with pytest.raises(ValueError, match=r"metrics and weighted_metrics.*all of them as metrics"):
        distiller.compile("sgd", hard_loss, metrics=["accuracy"], weighted_metrics=["mse"])
