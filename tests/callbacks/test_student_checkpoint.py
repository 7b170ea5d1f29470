"""The best student of a training, in a file of its own."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd import compression


class Remember(keras.callbacks.Callback):
    """The student's weights after each epoch."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        student = getattr(self.model, "student", self.model)
        self.weights.append(student.get_weights())


@pytest.fixture(params=["plain", "pruned", "quantization-aware"])
def kind(request, student, examples):
    """A student, and what reads its file."""
    if request.param == "plain":
        return student, keras.models.load_model
    if request.param == "pruned":
        return compression.prune(
            student, 0.5, schedule=compression.PolynomialSchedule(end_step=2)
        ), compression.load
    return compression.quantize_aware(student, examples[0]), compression.load


@pytest.mark.fast_rows(1)
def test_the_best_student_is_saved_and_loads_without_a_distiller(
    kind, teacher, examples, hard_loss, tmp_path
):
    student, load = kind
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.3), hard_loss, metrics=["accuracy"], run_eagerly=True)
    path = tmp_path / "of this run" / "best.keras"
    remember = Remember()
    history = distiller.fit(
        *examples,
        validation_data=examples,
        epochs=5,
        verbose=0,
        callbacks=[
            keras_kd.callbacks.StudentCheckpoint(path, monitor="val_accuracy", save_best_only=True),
            remember,
        ],
    ).history["val_accuracy"]
    best = int(np.argmax(history))
    assert best < 4 or history[4] > history[0]
    assert [file.name for file in path.parent.iterdir()] == ["best.keras"]
    saved = load(path)
    for one, other in zip(saved.get_weights(), remember.weights[best], strict=True):
        np.testing.assert_array_equal(one, other)
    if load is compression.load:
        plain = compression.strip(saved)
        assert isinstance(plain, keras.Model)


def test_weights_alone_and_names_with_logs(teacher, student, examples, hard_loss, tmp_path):
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    every = keras_kd.callbacks.StudentCheckpoint(
        tmp_path / "{epoch:02d}.weights.h5", save_weights_only=True
    )
    distiller.fit(*examples, epochs=2, verbose=0, callbacks=[every])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["01.weights.h5", "02.weights.h5"]
    weights = student.get_weights()
    student.set_weights([np.zeros_like(weight) for weight in weights])
    student.load_weights(tmp_path / "02.weights.h5")
    for one, other in zip(student.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_in_the_fit_of_a_student_it_is_a_model_checkpoint(student, examples, hard_loss, tmp_path):
    student.compile("sgd", hard_loss, run_eagerly=True)
    path = tmp_path / "student.keras"
    student.fit(*examples, verbose=0, callbacks=[keras_kd.callbacks.StudentCheckpoint(path)])
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(again.predict(examples[0]), student.predict(examples[0]))
    with pytest.raises(ValueError, match="must end in"):
        keras_kd.callbacks.StudentCheckpoint(tmp_path / "student")
