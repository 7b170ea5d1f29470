"""What all teachers share."""

import keras
import numpy as np
import pytest
import tf_keras

from keras_kd import teachers
from keras_kd.teachers import ModelTeacher, Teacher


class Bare(Teacher):
    name = "bare"


def test_the_base_says_what_is_missing(student):
    teacher = Bare()
    assert teacher.models == teacher.learning_models == teacher.student_layer_names == []
    assert teacher.input_shapes is None
    assert teacher.shapes(None) is None
    assert teacher.supports_jit
    teacher.meet(student)
    teacher.after_step(student)
    with pytest.raises(NotImplementedError, match="Bare does not define its outputs"):
        teacher(None, None)
    with pytest.raises(NotImplementedError, match="Bare does not define its layers"):
        teacher.tap([])
    with pytest.raises(ValueError, match=r"save_teacher=False and set distiller.teacher"):
        teacher.get_config()


def test_a_model_is_asked_as_in_inference(examples):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dropout(0.5)], name="noisy")
    teacher = ModelTeacher(model)
    assert teacher.name == "noisy"
    assert teacher.models == [model]
    assert teacher.input_shapes == [(None, 5)]
    np.testing.assert_array_equal(teacher(examples[0], None).outputs, examples[0])


def test_configuration_of_a_model(teacher):
    config = keras.saving.serialize_keras_object(ModelTeacher(teacher))
    again = keras.saving.deserialize_keras_object(config)
    assert again.name == teacher.name
    old = tf_keras.Sequential([tf_keras.layers.Dense(3)], name="old")
    with pytest.raises(ValueError, match="the tf_keras teacher 'old' for a file of Keras 3"):
        ModelTeacher(old).get_config()


@pytest.mark.parametrize("name", teachers.__all__)
def test_every_name_is_documented(name):
    assert getattr(teachers, name).__doc__
