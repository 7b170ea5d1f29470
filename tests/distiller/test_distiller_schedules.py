"""Temperatures and weights that change with the step, and what the logs show of them."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import DecoupledKD, LogitsMSE, SoftTargets

from _models import in_flavour

FLAVOURS = ["keras", "tf_keras"]


@keras.saving.register_keras_serializable("tests")
def cooling(step):
    return 8.0 / (1.0 + keras.ops.cast(step, "float32"))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_logs_show_what_the_schedules_said(teacher, student, examples, hard_loss, flavour):
    distiller = keras_kd.Distiller(
        teacher,
        in_flavour(student, flavour),
        [SoftTargets(cooling), SoftTargets(2.0), LogitsMSE()],
        [keras_kd.schedules.warm_up(4), 1.0, 0.5],
        student_loss_weight=lambda step: 0.5 * keras.ops.exp(-keras.ops.cast(step, "float32")),
    )
    distiller.compile("sgd", hard_loss, metrics=["accuracy"], run_eagerly=True)
    history = distiller.fit(*examples, batch_size=10, epochs=3, shuffle=False, verbose=0).history
    # Two steps per epoch; an epoch's log is that of its last step: 1, 3, 5.
    np.testing.assert_allclose(history["soft_targets_1_temperature"], [4.0, 2.0, 8 / 6], rtol=1e-6)
    np.testing.assert_allclose(history["soft_targets_1_weight"], [0.25, 0.75, 1.0], rtol=1e-6)
    expected = 0.5 * np.exp([-1.0, -3.0, -5.0])
    np.testing.assert_allclose(history["student_loss_weight"], expected, rtol=1e-5)
    assert "accuracy" in history
    assert set(history) == {
        "accuracy",
        "distillation_loss",
        "loss",
        "soft_targets_1_temperature",
        "soft_targets_1_weight",
        "student_loss",
        "student_loss_weight",
        "total_loss",
    }


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_loss_is_that_of_the_current_values(teacher, student, examples, hard_loss, flavour):
    student = in_flavour(student, flavour)
    x, y = examples
    schedule = keras_kd.schedules.warm_up(4, 3.0)
    distiller = keras_kd.Distiller(teacher, student, SoftTargets(cooling), schedule)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    for step in range(3):
        logs = distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
        loss = SoftTargets(8.0 / (1 + step))
        expected = 3.0 * step / 4 * float(loss.compute_loss(teacher(x), student(x)))
        assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        distiller.train_on_batch(x, y)


def test_plain_numbers_leave_the_logs_as_they_were(teacher, student, examples, hard_loss):
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    logs = distiller.train_on_batch(*examples, return_dict=True)
    assert set(logs) == {"loss", "student_loss", "distillation_loss", "total_loss"}


def test_decoupled_distillation_warms_up(teacher, student, examples, hard_loss):
    distiller = keras_kd.Distiller(teacher, student, DecoupledKD(), keras_kd.schedules.warm_up(10))
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    history = distiller.fit(*examples, batch_size=4, epochs=3, verbose=0).history
    np.testing.assert_allclose(history["decoupled_kd_weight"], [0.4, 0.9, 1.0], rtol=1e-6)


def test_schedules_are_saved(teacher, student, examples, hard_loss, tmp_path):
    distiller = keras_kd.Distiller(
        teacher, student, SoftTargets(cooling), [keras_kd.schedules.warm_up(10)], cooling_share
    )
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    distiller.fit(*examples, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    expected = distiller.evaluate(*examples, verbose=0, return_dict=True)
    assert loaded.evaluate(*examples, verbose=0, return_dict=True) == pytest.approx(expected, 1e-5)


@keras.saving.register_keras_serializable("tests")
def cooling_share(step):
    return 1.0 / (2.0 + keras.ops.cast(step, "float32"))


def test_a_share_on_schedule_wants_labels(teacher, student):
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=cooling_share)
    with pytest.raises(ValueError, match=r"loss=None with student_loss_weight.*a loss on the"):
        distiller.compile("sgd", None)


def test_a_schedule_out_of_bounds_at_its_start(teacher, student):
    with pytest.raises(ValueError, match=r"student_loss_weight at step 0=8\.0.*at most 1"):
        keras_kd.Distiller(teacher, student, student_loss_weight=cooling)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"distillation_losses": SoftTargets(lambda step: 2.0 - step)},
            r"soft_targets_temp.*above 0",
        ),
        (
            {"distillation_loss_weights": lambda step: 1.0 - step},
            r"soft_targets_weight.*at least 0",
        ),
        ({"student_loss_weight": lambda step: 0.5 + 0.3 * step}, r"student_loss_weight.*at most 1"),
    ],
)
def test_a_schedule_that_leaves_its_bounds_stops_the_training_and_spares_the_student(
    teacher, student, examples, hard_loss, flavour, given, message
):
    student = in_flavour(student, flavour)
    distiller = keras_kd.Distiller(teacher, student, **given)
    distiller.compile("sgd", hard_loss)
    with pytest.raises(ValueError, match=rf"Received {message}.*let the schedule end within"):
        distiller.fit(*examples, batch_size=2, verbose=0)
    assert all(np.isfinite(values).all() for values in student.get_weights())


def test_labels_are_not_needed_for_metrics_of_validation(teacher, student, examples):
    x, y = examples
    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.0)
    distiller.compile("sgd", loss=None, metrics=["accuracy"], run_eagerly=True)
    history = distiller.fit(x, validation_data=(x, y), epochs=2, verbose=0).history
    assert "val_accuracy" in history
    assert "accuracy" not in history
