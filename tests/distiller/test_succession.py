"""A distiller whose student is replaced by another form of it."""

import keras
import numpy as np
import pytest
import tf_keras

import keras_kd
from keras_kd.compression import prune, to_tf_keras
from keras_kd.distiller.tf_keras_distiller import TfKerasDistiller
from keras_kd.losses import DIST, Hint, VariationalInformation

from _models import cross_entropy, labelled


@pytest.fixture
def data():
    return labelled(32, (5,))


def compile_arguments(optimizer="sgd"):
    return {
        "optimizer": optimizer,
        "loss": cross_entropy(),
        "metrics": ["accuracy"],
        "run_eagerly": True,
    }


@pytest.fixture
def distiller(teacher, dense_model):
    distiller = keras_kd.Distiller(
        teacher,
        dense_model(),
        [Hint("hidden", "hidden"), DIST()],
        [2.0, 3.0],
        student_loss_weight=0.25,
        missing_label=-1,
        name="school",
    )
    distiller.compile(**compile_arguments(keras.optimizers.SGD(0.1, momentum=0.5)))
    return distiller


def test_everything_but_the_student_stays(distiller, dense_model, data):
    student = dense_model(units=7)
    other = distiller.with_student(student)
    assert other.student is student
    assert other.teacher is distiller.teacher
    assert other.distillation_loss_weights == [2.0, 3.0]
    assert other.student_loss_weight == 0.25
    assert other.name == "school"
    assert (
        other.fit(*data, verbose=0).history.keys() == distiller.fit(*data, verbose=0).history.keys()
    )


@pytest.mark.slow
@pytest.mark.parametrize("convert", [lambda model: model, to_tf_keras], ids=["keras", "tf_keras"])
def test_a_twin_of_the_student_learns_the_same(distiller, data, convert):
    twin = convert(keras.models.clone_model(distiller.student))
    twin.set_weights(distiller.student.get_weights())
    other = distiller.with_student(twin)
    assert isinstance(other, TfKerasDistiller) == isinstance(twin, tf_keras.Model)
    for each in (distiller, other):
        each.fit(*data, epochs=3, shuffle=False, verbose=0)
    for one, another in zip(distiller.student.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, another, atol=1e-5)


def test_adapters_go_on_where_shapes_allow(distiller, dense_model, data):
    distiller.fit(*data, epochs=2, verbose=0)
    learned = distiller.bridges[0].get_weights()
    same = distiller.with_student(dense_model())
    np.testing.assert_array_equal(same.bridges[0].get_weights()[0], learned[0])
    same.fit(*data, verbose=0)
    np.testing.assert_array_equal(distiller.bridges[0].get_weights()[0], learned[0])
    wider = distiller.with_student(dense_model(units=9))
    assert wider.bridges[0].get_weights()[0].shape == (9, 6)


def test_losses_that_learn_are_copied(teacher, dense_model, data):
    distiller = keras_kd.Distiller(
        teacher, dense_model(), VariationalInformation("hidden", "hidden")
    )
    distiller.compile(**compile_arguments())
    distiller.fit(*data, verbose=0)
    before = [np.asarray(weight) for weight in distiller.bridges[0].get_weights()]
    other = distiller.with_student(dense_model(units=9))
    other.fit(*data, verbose=0)
    for one, weight in zip(before, distiller.bridges[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, weight)


def test_the_optimizer_begins_anew_with_the_rate_it_was_compiled_with(distiller, dense_model, data):
    distiller.fit(*data, verbose=0)
    distiller.optimizer.learning_rate = 1e-9
    other = distiller.with_student(dense_model())
    assert other.optimizer is not distiller.optimizer
    assert float(other.optimizer.learning_rate) == pytest.approx(0.1)
    assert float(other.optimizer.momentum) == 0.5
    assert int(other.optimizer.iterations) == 0


@pytest.mark.parametrize("optimizer", ["sgd", keras.optimizers.SGD(0.1)], ids=["name", "object"])
def test_the_learning_rate_can_be_another(teacher, dense_model, optimizer):
    distiller = keras_kd.Distiller(teacher, dense_model())
    distiller.compile(**compile_arguments(optimizer))
    other = distiller.with_student(dense_model(), learning_rate=0.5)
    assert float(other.optimizer.learning_rate) == 0.5
    assert isinstance(other.optimizer, keras.optimizers.SGD)


def test_a_schedule_of_ones_own_needs_no_registration(teacher, dense_model):
    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.125

        def get_config(self):
            return {}

    distiller = keras_kd.Distiller(teacher, dense_model())
    distiller.compile(**compile_arguments(keras.optimizers.Adam(Own())))
    other = distiller.with_student(dense_model())
    assert float(other.optimizer.learning_rate) == 0.125


def test_a_compressed_student_is_trained_as_its_compression_asks(distiller, data):
    pruned = distiller.with_student(prune(distiller.student, 0.5))
    pruned.fit(*data, epochs=4, batch_size=8, verbose=0)
    assert keras_kd.compression.summary(pruned.student).sparsity == pytest.approx(0.5, abs=0.03)


def test_a_subclass_stays_one(teacher, dense_model):
    class Own(keras_kd.Distiller):
        pass

    distiller = Own(teacher, dense_model())
    assert type(distiller.with_student(dense_model())) is Own
    with pytest.raises(ValueError, match="tf_keras student for Own"):
        distiller.with_student(to_tf_keras(dense_model()))


def test_a_distiller_that_is_not_compiled_gives_one_that_is_not(teacher, dense_model):
    distiller = keras_kd.Distiller(teacher, dense_model())
    assert not distiller.with_student(dense_model()).compiled
