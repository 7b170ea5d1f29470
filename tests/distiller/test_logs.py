"""Agreement with the teacher, and what `TensorBoard` shows."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd
from keras_kd import compression, losses
from keras_kd.callbacks import DistillationLogs
from keras_kd.metrics import Agreement


class Board(keras.callbacks.Callback):
    """Has the name by which `fit` knows TensorBoard, and keeps the logs."""

    def on_epoch_end(self, epoch, logs=None):
        self.logs = dict(logs)


Board.__name__ = "TensorBoard"


def compiled(distiller, hard_loss, *metrics):
    distiller.compile(
        keras.optimizers.SGD(0.0), hard_loss, metrics=[*metrics, "accuracy"], run_eagerly=True
    )
    return distiller


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_agreement_is_that_of_the_predictions(flavour, teacher, student, examples, hard_loss):
    x, y = examples
    expected = np.mean(
        np.argmax(teacher.predict(x, verbose=0), -1) == np.argmax(student.predict(x, verbose=0), -1)
    )
    if flavour == "tf_keras":
        student = compression.to_tf_keras(student)
    distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss, Agreement())
    # The student does not change: its rate is 0.
    history = distiller.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0).history
    assert history["agreement"] == pytest.approx([expected] * 2)
    assert history["val_agreement"] == pytest.approx([expected] * 2)
    assert 0 < expected < 1
    other = distiller.with_student(distiller.student)
    assert other.evaluate(x, y, verbose=0, return_dict=True)["agreement"] == pytest.approx(expected)
    compiled(distiller, hard_loss)
    assert "agreement" not in distiller.evaluate(x, y, verbose=0, return_dict=True)


def test_agreement_compares_a_softmax_with_a_sigmoid(examples):
    x, y = examples[0], (examples[1] > 0).astype("float32")
    teacher = keras.Sequential([keras.Input((5,)), layers.Dense(2, activation="softmax")])
    student = keras.Sequential([keras.Input((5,)), layers.Dense(1, activation="sigmoid")])
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", "binary_crossentropy", metrics=Agreement(), run_eagerly=True)
    found = distiller.evaluate(x, y, verbose=0, return_dict=True)["agreement"]
    expected = np.mean(
        (teacher.predict(x, verbose=0)[:, 1] > 0.5) == (student.predict(x, verbose=0)[:, 0] > 0.5)
    )
    assert found == pytest.approx(expected)


def test_agreement_is_there_after_loading(teacher, student, examples, hard_loss, tmp_path):
    distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss, Agreement())
    expected = distiller.evaluate(*examples, verbose=0, return_dict=True)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.evaluate(*examples, verbose=0, return_dict=True) == pytest.approx(expected)


def test_the_board_shows_each_loss_and_number(teacher, student, examples, hard_loss):
    terms = [losses.SoftTargets(4.0), losses.HardTargets()]
    distiller = compiled(keras_kd.Distiller(teacher, student, terms, [1.0, 3.0], 0.25), hard_loss)
    board = Board()
    history = distiller.fit(*examples, batch_size=20, verbose=0, callbacks=[board]).history
    logs = board.logs
    assert logs["soft_targets_loss"] + 3.0 * logs["hard_targets_loss"] == pytest.approx(
        logs["distillation_loss"], rel=1e-5
    )
    assert logs["soft_targets_loss"] > 0 < logs["hard_targets_loss"]
    assert (logs["soft_targets_weight"], logs["hard_targets_weight"]) == (1.0, 3.0)
    assert (logs["soft_targets_temperature"], logs["student_loss_weight"]) == (4.0, 0.25)
    assert logs["examples_per_second"] > 0
    assert logs["sparsity/hidden/kernel"] == 0.0
    assert {"soft_targets_loss", "sparsity/hidden/kernel"} <= set(history)


def test_other_trainings_have_the_usual_logs(teacher, student, examples, hard_loss):
    distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss)
    history = distiller.fit(*examples, verbose=0, callbacks=[keras.callbacks.History()]).history
    assert set(history) == {
        *("loss", "student_loss", "distillation_loss", "total_loss", "accuracy")
    }


def test_sparsity_of_a_pruned_student_is_that_of_its_masks(teacher, student, examples, hard_loss):
    schedule = compression.PolynomialSchedule(end_step=1, frequency=1)
    pruned = compression.prune(student, 0.5, schedule=schedule)
    distiller = compiled(keras_kd.Distiller(teacher, pruned), hard_loss)
    logs = DistillationLogs()
    history = distiller.fit(*examples, verbose=0, callbacks=[logs]).history
    shares = [history[name][-1] for name in history if name.startswith("sparsity/")]
    assert len(shares) == 2
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)


def test_tensorboard_writes_them(teacher, student, examples, hard_loss, tmp_path):
    distiller = compiled(keras_kd.Distiller(teacher, student), hard_loss, Agreement())
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    distiller.fit(*examples, verbose=0, callbacks=[board])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("events*"))
    for name in (b"soft_targets_loss", b"agreement", b"temperature", b"sparsity/hidden/kernel"):
        assert b"epoch_" + name in written or name in written
