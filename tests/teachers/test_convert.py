"""What can be a teacher."""

import keras
import numpy as np
import pytest
import tf_keras

import keras_kd
from keras_kd.teachers import Ensemble, Function, LastExit, ModelTeacher, as_teacher


def test_models_of_either_keras(teacher):
    old = tf_keras.Sequential([tf_keras.layers.Dense(3)])
    for model in (teacher, old):
        found = as_teacher(model)
        assert isinstance(found, ModelTeacher)
        assert found.model is model


def test_lists_functions_and_teachers(teacher):
    assert isinstance(as_teacher([teacher, teacher]), Ensemble)
    assert isinstance(as_teacher((teacher,)), Ensemble)
    assert isinstance(as_teacher(lambda x: x), Function)
    assert isinstance(as_teacher(keras.layers.Dense(3)), Function)
    own = LastExit()
    assert as_teacher(own) is own


@pytest.mark.parametrize("value", [None, "teacher.keras", 3, np.ones(2), keras.Model])
def test_anything_else(value):
    with pytest.raises(ValueError, match=r"Received teacher=.* Expected a keras.Model or a"):
        as_teacher(value)
    with pytest.raises(ValueError, match=r"Expected a list of one model or more"):
        as_teacher([])


def test_the_distiller_gives_back_a_model_as_it_came(teacher, student):
    assert keras_kd.Distiller(teacher, student).teacher is teacher
    ensemble = Ensemble([teacher])
    assert keras_kd.Distiller(ensemble, student).teacher is ensemble
