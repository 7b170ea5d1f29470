"""Beyond one label per image: sequences, maps, several labels, numbers."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import DIST, AttentionTransfer, DecoupledKD, Hint, LogitsMSE, SoftTargets

from _models import cross_entropy

layers = keras.layers
TOKENS = np.array([[3, 1, 4, 0, 0], [2, 5, 1, 3, 0], [4, 4, 0, 0, 0], [1, 2, 3, 4, 5]])


def tagger(units, seed):
    """A tag for each token; padding is masked."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None,), dtype="int32")
    hidden = layers.Embedding(6, units, mask_zero=True)(inputs)
    hidden = layers.Dense(units, activation="tanh", name="hidden")(hidden)
    return keras.Model(inputs, layers.Dense(3, name="tags")(hidden))


def segmenter(units, seed, activation=None):
    """A class for each pixel."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(units, 3, padding="same", activation="relu", name="hidden"),
            layers.Conv2D(3, 1, activation=activation, kernel_initializer="random_normal"),
        ]
    )


def evaluated(distiller, x, y, **options):
    logs = distiller.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True, **options)
    return logs["distillation_loss"]


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_padding_counts_in_no_loss_on_tokens(formulas, hard_loss, flavour):
    teacher, student = tagger(6, 1), tagger(4, 2)
    before = student(TOKENS), teacher(TOKENS)
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    tags = np.where(TOKENS > 0, TOKENS % 3, 0)
    distiller = keras_kd.Distiller(teacher, student, [SoftTargets(2.0), Hint("hidden", "hidden")])
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    hint = distiller.distillation_losses[1]
    adapted = distiller._objective.bridges[1].adapt(_features(student))
    student_logits, teacher_logits = (np.asarray(outputs) for outputs in before)
    real = TOKENS > 0
    expected = formulas.soft_targets(teacher_logits, student_logits, temperature=2.0)[real].mean()
    expected += np.square(np.asarray(adapted) - _features(teacher)).mean(axis=-1)[real].mean()
    assert evaluated(distiller, TOKENS, tags) == pytest.approx(expected, rel=1e-4)
    assert hint.adapter == "auto"
    distiller.fit(TOKENS, tags, epochs=2, verbose=0)


def _features(model):
    keras_module = keras if isinstance(model, keras.Model) else keras_kd._keras.tf_keras()
    return keras_module.Model(model.input, model.get_layer("hidden").output)(TOKENS)


def test_decoupled_distillation_of_tokens(hard_loss):
    teacher, student = tagger(6, 1), tagger(4, 2)
    distiller = keras_kd.Distiller(teacher, student, DecoupledKD())
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    tags = TOKENS % 3
    cut = evaluated(distiller, TOKENS[2:3, :2], tags[2:3, :2])
    assert evaluated(distiller, TOKENS[2:3], tags[2:3]) == pytest.approx(cut, rel=1e-4)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_maps_of_classes(formulas, activation):
    teacher, student = segmenter(6, 1, activation), segmenter(4, 2, activation)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    y = np.random.default_rng(1).integers(0, 3, (4, 8, 8))
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    distiller = keras_kd.Distiller(teacher, student, SoftTargets())
    distiller.compile("sgd", hard, metrics=["accuracy"], run_eagerly=True)

    def logits(model):
        outputs = np.asarray(model(x), "float64")
        return outputs if activation is None else np.log(outputs)

    values = formulas.soft_targets(logits(teacher), logits(student))
    assert evaluated(distiller, x, y) == pytest.approx(values.mean(), rel=1e-4)
    weights = (y != 2).astype("float32")
    weighted = evaluated(distiller, x, y, sample_weight=weights)
    assert weighted == pytest.approx((values * weights).mean(), rel=1e-4)


@pytest.mark.parametrize("loss", [AttentionTransfer("hidden", "hidden"), DIST(), DecoupledKD()])
def test_other_losses_on_maps_of_classes(loss):
    teacher, student = segmenter(6, 1), segmenter(4, 2)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    y = np.random.default_rng(1).integers(0, 3, (4, 8, 8))
    distiller = keras_kd.Distiller(teacher, student, loss)
    distiller.compile("adam", cross_entropy(), run_eagerly=True)
    losses = distiller.fit(x, y, epochs=4, verbose=0).history["distillation_loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_several_labels_for_one_example(dense_model, examples, formulas, activation):
    x, _ = examples
    y = (x[:, :4] > 0).astype("float32")
    teacher = dense_model(4, units=6, activation=activation, seed=1)
    student = dense_model(4, activation=activation, seed=2)
    loss = SoftTargets(2.0, activation="sigmoid")
    distiller = keras_kd.Distiller(teacher, student, loss)
    hard = keras.losses.BinaryCrossentropy(from_logits=activation is None)
    distiller.compile("sgd", hard, metrics=[keras.metrics.BinaryAccuracy()], run_eagerly=True)

    def logits(model):
        outputs = np.asarray(model(x), "float64")
        return outputs if activation is None else np.log(outputs / (1 - outputs))

    values = formulas.soft_targets(
        logits(teacher), logits(student), temperature=2.0, activation="sigmoid"
    )
    assert evaluated(distiller, x, y) == pytest.approx(values.mean(), rel=1e-4)
    distiller.fit(x, y, verbose=0)


@pytest.mark.parametrize("classes", [1, 3])
def test_numbers_instead_of_classes(dense_model, examples, classes):
    x, _ = examples
    y = x[:, :classes] * 2.0 + 1.0
    teacher, student = dense_model(classes, units=6, seed=1), dense_model(classes, seed=2)
    distiller = keras_kd.Distiller(teacher, student, [LogitsMSE(), Hint("hidden", "hidden")])
    distiller.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    logs = distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    expected = np.square(np.asarray(teacher(x)) - np.asarray(student(x))).mean()
    hint = logs["distillation_loss"] - expected
    assert hint > 0
    assert logs["student_loss"] == pytest.approx(np.square(student(x) - y).mean(), rel=1e-5)
    assert np.isfinite(distiller.fit(x, y, verbose=0).history["loss"]).all()


def test_learning_from_the_teacher_alone_without_labels(dense_model, examples):
    teacher, student = dense_model(seed=1), dense_model(seed=2)
    x, y = examples
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.02), loss=None)
    losses = distiller.fit(x, epochs=60, verbose=0).history["distillation_loss"]
    assert losses[-1] < 0.2 * losses[0]
    assert "accuracy" not in distiller.evaluate(x, verbose=0, return_dict=True)
    distiller.compile("adam", loss=None, metrics=["accuracy"], run_eagerly=True)
    assert "accuracy" in distiller.evaluate(x, y, verbose=0, return_dict=True)
