"""Examples without a label: they count in the distillation losses only."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.distiller.labels import Labels

from _models import cross_entropy

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
        distiller.compile("sgd", hard, metrics=["accuracy"], run_eagerly=True)
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
    distiller.compile("adam", hard_loss, metrics=["accuracy"], run_eagerly=True)
    history = distiller.fit(data, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert np.isfinite(history["accuracy"]).all()


@pytest.mark.parametrize("kind", ["sparse", "one-hot"])
def test_a_loss_that_reads_labels_counts_the_labeled_only(teacher, student, examples, kind):
    x, y = examples
    partly = np.where(np.arange(20) % 2 == 0, y, -1)
    hard = cross_entropy()
    if kind == "one-hot":
        hard = keras.losses.CategoricalCrossentropy(from_logits=True)
        partly = one_hot(partly)
    distiller = keras_kd.Distiller(
        teacher, student, keras_kd.losses.DecoupledKD(), missing_label=-1
    )
    distiller.compile("sgd", hard, run_eagerly=True)
    loss = keras_kd.losses.DecoupledKD()
    expected = float(loss.compute_loss(teacher(x[::2]), student(x[::2]), y=y[::2]))
    logs = distiller.evaluate(x, partly, batch_size=20, verbose=0, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)


def test_two_kinds_of_metrics_are_one_too_many(teacher, student, hard_loss):
    distiller = keras_kd.Distiller(teacher, student, missing_label=-1)
    with pytest.raises(ValueError, match=r"metrics and weighted_metrics.*all of them as metrics"):
        distiller.compile("sgd", hard_loss, metrics=["accuracy"], weighted_metrics=["mse"])


@pytest.mark.parametrize("labels", [SPARSE, SPARSE[:, None], one_hot(SPARSE), INTEGER_ONE_HOT])
def test_classes_weigh_and_missing_labels_have_none(labels):
    weighed = Labels(-1).weighed(labels, None, OUTPUTS, {0: 3.0, 2: 5.0})
    np.testing.assert_array_equal(weighed, [5, 1, 3, 1])
    weighed = Labels(-1).weighed(labels, np.array([1.0, 2.0, 3.0, 4.0]), OUTPUTS, {0: 3.0})
    np.testing.assert_array_equal(weighed, [1, 2, 9, 4])


def test_classes_of_several_outputs_do_not_weigh():
    with pytest.raises(ValueError, match="class_weight for a student of several outputs"):
        Labels(-1).weighed([SPARSE], None, [OUTPUTS], {0: 1.0})


CLASS_WEIGHT = {0: 3.0, 1: 0.5, 2: 2.0}


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("flavour", "form"),
    [
        ("keras", "sparse"),
        ("tf_keras", "one hot"),
        pytest.param("keras", "one hot", marks=pytest.mark.slow),
        pytest.param("tf_keras", "sparse", marks=pytest.mark.slow),
    ],
)
def test_class_weights_act_the_same_on_arrays_and_datasets(dense_model, teacher, flavour, form):
    x = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
    known = np.random.default_rng(1).integers(0, 3, 12)
    labels = np.where(np.arange(12) % 3 == 0, -1, known)
    y = labels if form == "sparse" else one_hot(labels)
    loss = (
        cross_entropy()
        if form == "sparse"
        else keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    student = dense_model(seed=2)
    z = np.asarray(student(x), "float64")
    log_p = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    weights = np.array([CLASS_WEIGHT[label] for label in known])
    has = labels >= 0
    hard = -np.sum((weights * log_p[np.arange(12), known])[has]) / has.sum()
    t = np.asarray(teacher(x), "float64")
    log_t = t - np.log(np.exp(t).sum(axis=-1, keepdims=True))
    kl = np.sum(np.exp(log_t) * (log_t - log_p), axis=-1)
    soft = np.mean(np.where(has, weights, 1.0) * kl)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, y

    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(
        teacher, student, keras_kd.losses.SoftTargets(1.0), missing_label=-1
    )
    distiller.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(12)
    for data in ({"x": x, "y": y, "batch_size": 12}, {"x": dataset}, {"x": Batches()}):
        logs = distiller.fit(
            **data, class_weight=CLASS_WEIGHT, validation_data=dataset, verbose=0
        ).history
        assert logs["student_loss"][0] == pytest.approx(hard, rel=1e-5)
        assert logs["distillation_loss"][0] == pytest.approx(soft, rel=1e-5)
        unweighed = distiller.evaluate(x, y, batch_size=12, verbose=0, return_dict=True)
        assert logs["val_student_loss"][0] == pytest.approx(unweighed["student_loss"], rel=1e-5)
    on_batch = distiller.train_on_batch(x, y, class_weight=CLASS_WEIGHT, return_dict=True)
    assert float(on_batch["student_loss"]) == pytest.approx(hard, rel=1e-5)
    # Without weights the step is another one.
    logs = distiller.fit(x, y, batch_size=12, verbose=0).history
    assert logs["student_loss"][0] == pytest.approx(unweighed["student_loss"], rel=1e-5)
