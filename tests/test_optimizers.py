"""Optimizers that are made again, and those that cannot be."""

import keras
import numpy as np
import pytest
import tf_keras

import keras_kd
from keras_kd._optimizers import recipe_of, settings_of


class Silent(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without get_config, as many are written."""

    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))


class SilentOld(tf_keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))


def wrapped(optimizer):
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(Silent(), momentum=0.5),
        lambda: wrapped(keras.optimizers.SGD(Silent(), momentum=0.5)),
    ],
    ids=["plain", "scaled"],
)
@pytest.mark.parametrize("compression", [None, "to_tf_keras", "prune"])
def test_a_schedule_without_get_config_trains_every_kind_of_student(
    teacher, student, examples, hard_loss, optimizer, compression
):
    if compression == "prune":
        student = keras_kd.compression.prune(student, 0.5)
    elif compression:
        student = keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(optimizer(), hard_loss)
    distiller.fit(*examples, batch_size=10, verbose=0)
    rate = distiller.optimizer.learning_rate
    # That of the next step in Keras 3, of the last one in tf_keras.
    steps = 2 if compression is None else 1
    np.testing.assert_allclose(np.asarray(rate), 0.1 / (1 + steps), rtol=1e-5)


def test_another_student_begins_the_schedule_anew(
    teacher, student, dense_model, examples, hard_loss
):
    distiller = keras_kd.Distiller(teacher, student)
    optimizer = keras.optimizers.SGD(Silent(), momentum=0.5)
    distiller.compile(optimizer, hard_loss)
    distiller.fit(*examples, verbose=0)
    assert isinstance(optimizer._learning_rate, Silent)
    other = distiller.with_student(dense_model(seed=5))
    assert other.optimizer is not optimizer
    assert float(other.optimizer.learning_rate) == pytest.approx(0.1)
    assert other.optimizer.momentum == 0.5
    distiller.student = dense_model(seed=6)
    assert float(distiller.optimizer.learning_rate) == pytest.approx(0.1)


def test_a_tf_keras_schedule_without_get_config(teacher, student, examples, hard_loss):
    student = keras_kd.compression.to_tf_keras(student)
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(tf_keras.optimizers.Adam(SilentOld()), hard_loss)
    distiller.fit(*examples, verbose=0)
    assert settings_of(distiller.optimizer)["learning_rate"].__class__ is SilentOld


def test_a_scaled_optimizer_takes_another_learning_rate():
    make = recipe_of(wrapped(keras.optimizers.SGD(Silent(), momentum=0.5)))
    other = make(0.25)
    assert float(other.inner_optimizer.learning_rate) == 0.25
    assert (other.initial_scale, other.inner_optimizer.momentum) == (8.0, 0.5)
    assert make(None) is not make(None)


def test_an_optimizer_that_cannot_be_made_again_is_refused_when_one_is_needed(
    teacher, student, dense_model, examples, hard_loss
):
    class Own(keras.optimizers.SGD):
        def __init__(self, factor, **options):
            super().__init__(factor * 0.1, **options)

    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(Own(2.0), hard_loss)
    distiller.fit(*examples, verbose=0)
    with pytest.raises(ValueError, match=r"Own for another student.*build a new keras_kd"):
        distiller.with_student(dense_model(seed=5))
    with pytest.raises(ValueError, match="the optimizer Own for another student"):
        distiller.student = dense_model(seed=5)
    assert distiller.student is student
