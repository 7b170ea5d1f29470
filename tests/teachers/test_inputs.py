"""Teachers that see other inputs than the student."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.teachers.inputs import Inputs


def test_the_same_for_both():
    inputs = Inputs()
    assert inputs.are_shared
    assert inputs.of_teacher(3) == inputs.of_student(3) == 3


def test_a_function_of_what_the_student_sees():
    inputs = Inputs(lambda x: x + 1)
    assert (inputs.of_teacher(3), inputs.of_student(3)) == (4, 3)


def test_entries_by_name():
    x = {"small": 1, "large": 2, "depth": 3}
    one, two = Inputs("large"), Inputs(["large", "depth"])
    assert one.of_teacher(x) == 2
    assert one.of_student(x) == {"small": 1, "depth": 3}
    assert two.of_teacher(x) == {"large": 2, "depth": 3}
    assert two.of_student(x) == 1
    assert two.of_student(7) == 7


def test_an_entry_that_the_data_do_not_have():
    with pytest.raises(ValueError, match=r"inputs \['small'\] with teacher_inputs='large'.*name"):
        Inputs("large").of_teacher({"small": 1})


@pytest.mark.parametrize("wrong", [3, [3]])
def test_what_names_no_inputs(wrong):
    with pytest.raises(TypeError, match=r"Received teacher_inputs=.*pass for example 'large'"):
        Inputs(wrong)


@pytest.fixture
def models():
    def image_model(size, name):
        return keras.Sequential(
            [keras.Input((size, size, 1)), keras.layers.Flatten(), keras.layers.Dense(3)], name=name
        )

    return image_model(8, "teacher"), image_model(4, "student")


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
@pytest.mark.parametrize("way", ["function", "name"])
def test_larger_images_for_the_teacher(models, hard_loss, flavour, way):
    teacher, student = models
    if flavour == "tf_keras":
        student = keras_kd.compression.to_tf_keras(student)
    small = np.random.default_rng(0).normal(size=(12, 4, 4, 1)).astype("float32")
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    y = np.arange(12) % 3
    if way == "function":
        given, x = (lambda x: keras.ops.repeat(keras.ops.repeat(x, 2, axis=1), 2, axis=2)), small
    else:
        given, x = "large", {"small": small, "large": large}
    distiller = keras_kd.Distiller(teacher, student, teacher_inputs=given)
    distiller.compile("sgd", hard_loss)
    distiller.fit(x, y, verbose=0)
    logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
    loss = keras_kd.losses.SoftTargets()
    expected = float(loss.compute_loss(teacher(large), student(small)))
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(
        distiller.predict(x, verbose=0), student(small), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        distiller.predict(small, verbose=0), student(small), rtol=1e-4, atol=1e-6
    )


def test_names_are_saved(models, hard_loss, tmp_path):
    distiller = keras_kd.Distiller(*models, teacher_inputs="large")
    distiller.compile("sgd", hard_loss)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded._inputs.teacher_inputs == "large"


def test_other_shapes_without_saying_so(models):
    with pytest.raises(ValueError, match="teacher_inputs what the teacher sees"):
        keras_kd.Distiller(*models)
