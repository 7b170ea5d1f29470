"""The distillation loss where none is given: by the loss on labels, and by the outputs."""

import functools
import re
import warnings

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd._keras import tf_keras
from keras_kd.distiller.default_losses import _KINDS, CLASSES, NUMBERS, advice_for, kind_of_loss
from keras_kd.losses import LogitsMSE, SoftCrossEntropy, SoftTargets

from _models import cross_entropy

layers = keras.layers


def root_mean_squared(y, outputs):
    return keras.ops.sqrt(keras.ops.mean(keras.ops.square(y - outputs), axis=-1))


class Weighed(keras.losses.MeanSquaredError):
    """A loss of a user's, made of one of Keras."""


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("mse", NUMBERS),
        ("MSE", NUMBERS),
        ("mean_absolute_error", NUMBERS),
        (keras.losses.mean_squared_error, NUMBERS),
        (keras.losses.huber, NUMBERS),
        (functools.partial(keras.losses.huber, delta=2.0), NUMBERS),
        (keras.losses.Huber(), NUMBERS),
        (keras.losses.LogCosh(name="mine"), NUMBERS),
        (Weighed(), NUMBERS),
        ("sparse_categorical_crossentropy", CLASSES),
        (keras.losses.BinaryCrossentropy(from_logits=True), CLASSES),
        (keras.losses.kl_divergence, CLASSES),
        ("squared_hinge", CLASSES),
        (root_mean_squared, None),
        (None, None),
    ],
)
def test_what_a_loss_on_labels_measures(loss, kind):
    assert kind_of_loss(loss) == kind


def test_losses_of_tf_keras_are_known():
    old = tf_keras().losses
    assert kind_of_loss(old.Huber()) == kind_of_loss(old.mean_squared_error) == NUMBERS
    assert kind_of_loss(old.SparseCategoricalCrossentropy()) == CLASSES


def test_every_loss_of_keras_is_in_the_table():
    known = set(_KINDS)
    classes = {
        name.lower()
        for name, one in vars(keras.losses).items()
        if isinstance(one, type) and name not in ("Loss", "Circle")
    }
    assert classes <= known


def chosen(student, loss, teacher=None, student_loss_weight=0.5):
    distiller = keras_kd.Distiller(
        teacher or student_like(student), student, student_loss_weight=student_loss_weight
    )
    distiller.compile("sgd", loss, run_eagerly=True)
    return [(type(one), one.outputs) for one in distiller.distillation_losses]


def student_like(student):
    if isinstance(student, keras.Model):
        return keras.models.clone_model(student)
    return tf_keras().models.clone_model(student)


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_regression_is_the_mean_squared_error(dense_model, examples, classes, flavour):
    x, _ = examples
    y = (x[:, :classes] * 20.0).astype("float32")
    teacher, student = dense_model(classes, units=6, seed=1), dense_model(classes, seed=2)
    expected = np.square(np.asarray(teacher(x)) - np.asarray(student(x))).mean()
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", keras.losses.Huber(), run_eagerly=True)
    logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)
    assert [type(loss) for loss in distiller.distillation_losses] == [LogitsMSE]
    # Another loss on labels, another default.
    distiller.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), run_eagerly=True)
    assert [type(loss) for loss in distiller.distillation_losses] == [SoftTargets]


def test_what_the_user_gives_stays(dense_model):
    distiller = keras_kd.Distiller(dense_model(1), dense_model(1), SoftTargets(2.0))
    distiller.compile("sgd", "mse")
    assert [type(loss) for loss in distiller.distillation_losses] == [SoftTargets]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_are_classes_whatever_measures_them(dense_model, activation):
    assert chosen(dense_model(activation=activation), "mse") == [(SoftTargets, None)]


def test_without_labels_a_models_own_loss_tells(dense_model):
    teacher = dense_model(1)
    teacher.compile("sgd", "mae")
    assert chosen(dense_model(1), None, teacher, 0.0) == [(LogitsMSE, None)]
    assert chosen(dense_model(3), None, None, 0.0) == [(SoftTargets, None)]


@pytest.mark.parametrize(
    ("classes", "loss", "weight"), [(1, None, 0.0), (2, root_mean_squared, 0.5)]
)
def test_where_nothing_tells_it_says_so(dense_model, classes, loss, weight):
    with pytest.warns(UserWarning, match=r"no distillation_losses with loss=.*LogitsMSE\(\)"):
        assert chosen(dense_model(classes), loss, None, weight) == [(SoftTargets, None)]


def detector(structure, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, "relu")(inputs)
    boxes = layers.Reshape((2, 2), name="boxes")(layers.Dense(4)(hidden))
    scores = layers.Dense(3, name="scores")(hidden)
    outputs = {
        "tuple": (boxes, scores),
        "list": [boxes, scores],
        "dict": {"boxes": boxes, "scores": scores},
    }
    return keras.Model(inputs, outputs[structure])


SPARSE = cross_entropy()


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("losses", [["huber", SPARSE], {"boxes": "huber", "scores": SPARSE}])
@pytest.mark.parametrize("structure", ["tuple", "list", "dict"])
def test_each_output_by_its_kind(examples, formulas, structure, losses):
    x, y = examples
    teacher, student = detector(structure, 1), detector(structure, 2)
    distiller = keras_kd.Distiller(teacher, student, distillation_loss_weights=3.0)
    distiller.compile("sgd", losses, run_eagerly=True)
    labels = [np.zeros((len(x), 2, 2), "float32"), y]
    if structure == "dict":
        labels = dict(zip(["boxes", "scores"], labels, strict=True))
    elif structure == "tuple":
        labels = tuple(labels)
    logs = distiller.evaluate(x, labels, batch_size=len(x), verbose=0, return_dict=True)
    of_teacher, of_student = (
        [np.asarray(part, "float64") for part in keras.tree.flatten(model(x))]
        for model in (teacher, student)
    )
    expected = np.square(of_teacher[0] - of_student[0]).mean()
    expected += formulas.soft_targets(of_teacher[1], of_student[1]).mean()
    assert logs["distillation_loss"] == pytest.approx(3.0 * expected, rel=1e-5)


def test_subclassed_students_by_the_names_of_the_losses(examples):
    class Detector(keras.Model):
        def __init__(self):
            super().__init__()
            self.boxes, self.scores = layers.Dense(4), layers.Dense(3)

        def call(self, inputs):
            return {"boxes": self.boxes(inputs), "scores": self.scores(inputs)}

    losses = {"boxes": "mse", "scores": SPARSE}
    assert chosen(Detector(), losses, Detector()) == [
        (SoftTargets, ["scores"]),
        (LogitsMSE, ["boxes"]),
    ]


def test_saved_with_what_was_chosen(examples, tmp_path):
    x, y = examples
    labels = {"boxes": np.zeros((len(x), 2, 2), "float32"), "scores": y}
    distiller = keras_kd.Distiller(
        detector("dict", 1), detector("dict", 2), distillation_loss_weights=2.0
    )
    distiller.compile("sgd", {"boxes": "mae", "scores": SPARSE}, run_eagerly=True)
    expected = distiller.evaluate(x, labels, verbose=0, return_dict=True)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.evaluate(x, labels, verbose=0, return_dict=True) == pytest.approx(expected)
    # The choice is made anew with another loss on labels.
    loaded.compile("sgd", {"boxes": "mae", "scores": "mse"})
    assert [type(loss) for loss in loaded.distillation_losses] == [LogitsMSE]
    assert loaded.distillation_loss_weights == [2.0]


def test_another_student_is_taught_by_the_same_rule(dense_model):
    distiller = keras_kd.Distiller(dense_model(2), dense_model(2), distillation_loss_weights=2.0)
    later = distiller.with_student(dense_model(2))
    later.compile("sgd", "mse")
    assert [type(loss) for loss in later.distillation_losses] == [LogitsMSE]
    again = later.with_student(dense_model(2))
    assert [type(loss) for loss in again.distillation_losses] == [LogitsMSE]
    assert again.distillation_loss_weights == [2.0]


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize(
    ("loss", "advised"),
    [
        (keras.losses.MeanSquaredError(), LogitsMSE),
        ("mse", LogitsMSE),
        (keras.losses.KLDivergence(), SoftTargets),
        (keras.losses.CategoricalCrossentropy(), SoftCrossEntropy),
        (keras.losses.Huber(), keras.distillation.LogitsDistillation),
        (keras.losses.CosineSimilarity(), keras.distillation.LogitsDistillation),
        (root_mean_squared, SoftTargets),
    ],
)
def test_the_advice_for_a_loss_of_keras_can_be_followed(dense_model, examples, loss, advised):
    with pytest.raises(TypeError, match="Received distillation loss") as error:
        keras_kd.Distiller(dense_model(2), dense_model(2), loss)
    advice = re.search(r"pass for example (.*)\.$", str(error.value))[1]
    assert advice == advice_for(loss)
    fixed = eval(advice, {"keras": keras, "keras_kd": keras_kd})
    assert type(fixed) is advised
    distiller = keras_kd.Distiller(dense_model(2, seed=1), dense_model(2, seed=2), fixed)
    distiller.compile("sgd", "mse", run_eagerly=True)
    x, _ = examples
    assert np.isfinite(distiller.evaluate(x, x[:, :2], verbose=0, return_dict=True)["loss"])


def test_no_warning_where_the_end_shows_the_classes(dense_model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen(dense_model(activation="softmax"), root_mean_squared)
