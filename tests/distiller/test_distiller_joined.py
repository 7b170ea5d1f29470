"""Training on batches that bring what the teacher says of them."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.taps import Tapped
from keras_kd.teachers import Teacher
from keras_kd.teachers.joined import joined

from _models import cross_entropy, labelled

EXAMPLES, FEATURES, CLASSES = 48, 6, 3


class Quoted(Teacher):
    """A teacher that is there in the data only."""

    name = "quoted"
    brings_outputs = True

    def tap(self, layer_names):
        pass

    def __call__(self, inputs, student):
        return Tapped(inputs["logits"], {})

    def get_config(self):
        return {}


keras.saving.register_keras_serializable(package="tests")(Quoted)


def classifier(name, api=keras):
    inputs = api.Input((FEATURES,))
    hidden = api.layers.Dense(8, activation="relu")(inputs)
    return api.Model(inputs, api.layers.Dense(CLASSES)(hidden), name=name)


@pytest.fixture
def data():
    return labelled(EXAMPLES, (FEATURES,), CLASSES)


def compiled(distiller, **options):
    loss = cross_entropy()
    distiller.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], **options)
    return distiller


def fit(distiller, x, y, **options):
    return distiller.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0, **options).history


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("kind", ["keras", "tf_keras"])
def test_the_student_learns_as_from_the_teacher_itself(kind, data):
    x, y = data
    api = keras if kind == "keras" else pytest.importorskip("tf_keras")
    teacher, student = classifier("teacher"), classifier("student", api)
    begun = student.get_weights()
    online = fit(compiled(keras_kd.Distiller(teacher, student)), x, y)
    taught = student.get_weights()
    student.set_weights(begun)

    said = teacher.predict(x, verbose=0)
    distiller = compiled(keras_kd.Distiller(Quoted(), student))
    quoted = fit(distiller, joined(x, {"logits": said}), y)

    assert not np.allclose(taught[0], begun[0], atol=1e-3)
    for one, other in zip(student.get_weights(), taught, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert quoted.keys() == online.keys()
    np.testing.assert_allclose(quoted["distillation_loss"], online["distillation_loss"], rtol=1e-4)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_needs_nothing_outside_of_tensorflow(jit_compile, data):
    x, y = data
    distiller = keras_kd.Distiller(Quoted(), classifier("student"))
    compiled(distiller, jit_compile=jit_compile)
    logits = np.zeros((EXAMPLES, CLASSES), "float32")
    assert np.isfinite(fit(distiller, joined(x, {"logits": logits}), y)["loss"]).all()


def test_data_without_outputs_are_refused_in_training(data):
    distiller = compiled(keras_kd.Distiller(Quoted(), classifier("student")))
    with pytest.raises(ValueError, match=r"without the teacher's stored outputs.*join"):
        distiller.fit(*data, verbose=0)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("kind", ["keras", "tf_keras"])
def test_data_without_outputs_are_evaluated_by_their_labels(kind, data):
    x, y = data
    api = keras if kind == "keras" else pytest.importorskip("tf_keras")
    student = classifier("student", api)
    distiller = compiled(keras_kd.Distiller(Quoted(), student))
    logits = np.zeros((EXAMPLES, CLASSES), "float32")
    history = fit(distiller, joined(x, {"logits": logits}), y, validation_data=(x, y))
    assert "val_distillation_loss" not in history
    assert "val_total_loss" not in history

    results = distiller.evaluate(x, y, verbose=0, return_dict=True)
    # tf_keras and older versions of Keras give tensors.
    results = {name: float(value) for name, value in results.items()}
    assert set(results) == {"loss", "student_loss", "accuracy"}
    scores = student.predict(x, verbose=0)
    crossentropy = cross_entropy()(y, scores)
    assert results["loss"] == pytest.approx(float(crossentropy), rel=1e-5)
    assert results["student_loss"] == results["loss"]
    assert results["accuracy"] == pytest.approx(np.mean(scores.argmax(-1) == y))


def test_data_without_outputs_need_a_loss_on_labels(data):
    distiller = keras_kd.Distiller(Quoted(), classifier("student"), student_loss_weight=0)
    distiller.compile("adam")
    with pytest.raises(ValueError, match="without the teacher's stored outputs"):
        distiller.evaluate(*data, verbose=0)


def test_the_student_sees_its_own_part_of_the_inputs(data):
    x, y = data
    student = classifier("student")
    distiller = compiled(keras_kd.Distiller(Quoted(), student, teacher_inputs="large"))
    logits = np.zeros((EXAMPLES, CLASSES), "float32")
    batch = joined({"small": x, "large": np.zeros((EXAMPLES, 2))}, {"logits": logits})
    assert np.isfinite(fit(distiller, batch, y)["loss"]).all()
    np.testing.assert_allclose(
        distiller.predict(batch, verbose=0), student.predict(x, verbose=0), atol=1e-6
    )


def test_it_is_saved_with_its_teacher(data, tmp_path):
    x, y = data
    distiller = compiled(keras_kd.Distiller(Quoted(), classifier("student")))
    batch = joined(x, {"logits": np.ones((EXAMPLES, CLASSES), "float32")})
    fit(distiller, batch, y)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    fit(distiller, batch, y)
    fit(loaded, batch, y)
    for one, other in zip(loaded.get_weights(), distiller.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("kind", ["keras", "tf_keras"])
def test_after_a_first_step_that_was_refused_the_next_one_trains(kind, data):
    x, y = data
    api = keras if kind == "keras" else pytest.importorskip("tf_keras")
    distiller = compiled(keras_kd.Distiller(Quoted(), classifier("student", api)))
    with pytest.raises(ValueError, match="without the teacher's stored outputs"):
        fit(distiller, x, y)
    said = joined(x, {"logits": np.eye(CLASSES, dtype="float32")[y]})
    history = fit(distiller, said, y)
    assert history["loss"][1] < history["loss"][0]
    assert int(distiller.optimizer.iterations) == 2 * EXAMPLES // 16
