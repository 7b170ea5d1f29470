"""Models that do not fit each other, refused before any training."""

import re

import keras
import pytest

import keras_kd
from keras_kd.losses import LogitsMSE, SoftTargets


def model(inputs=(5,), classes=3, **options):
    return keras.Sequential([keras.Input(inputs), keras.layers.Dense(classes)], **options)


def test_numbers_of_classes_that_differ():
    message = (
        r"Received outputs of shape \(None, 4\) from the teacher and \(None, 3\) from the student "
        r"for SoftTargets\. Expected equal shapes.* To fix it: give both models the same number"
    )
    with pytest.raises(ValueError, match=message):
        keras_kd.Distiller(model(classes=4), model(classes=3))


def test_numbers_of_classes_that_differ_in_subclassed_models_that_were_called():
    class Subclassed(keras.Model):
        def __init__(self, classes):
            super().__init__()
            self.logits = keras.layers.Dense(classes)

        def call(self, inputs):
            return self.logits(inputs)

    teacher, student = Subclassed(4), Subclassed(3)
    for one in (teacher, student):
        one(keras.ops.zeros((1, 5)))
    with pytest.raises(ValueError, match=r"4\) from the teacher and .*3\) from the student"):
        keras_kd.Distiller(teacher, student)


def test_numbers_of_classes_that_differ_in_models_not_built_yet(examples, hard_loss):
    class Subclassed(keras.Model):
        def __init__(self, classes):
            super().__init__()
            self.logits = keras.layers.Dense(classes)

        def call(self, inputs):
            return self.logits(inputs)

    distiller = keras_kd.Distiller(Subclassed(4), Subclassed(3))
    distiller.compile("sgd", hard_loss)
    with pytest.raises(ValueError, match=r"4\) from the teacher and .*3\) from the student"):
        distiller.fit(*examples, verbose=0)


@pytest.mark.parametrize("shape", [(6,), (5, 1), (None, 5)])
def test_input_shapes_that_differ(shape):
    message = (
        r"Received a teacher for inputs of shape .*5\) and a student for .* Expected the same "
        r"inputs for both\. To fix it: give both the same keras.Input"
    )
    with pytest.raises(ValueError, match=message):
        keras_kd.Distiller(model(), model(shape))


def test_input_sizes_that_are_open_fit():
    keras_kd.Distiller(model((None, 5)), model((7, 5)))


def test_numbers_of_inputs_that_differ():
    inputs = [keras.Input((5,)), keras.Input((5,))]
    two = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Add()(inputs)))
    with pytest.raises(ValueError, match=r"a teacher for inputs of shape \(None, 5\), \(None, 5\)"):
        keras_kd.Distiller(two, model())


@pytest.mark.parametrize("other", ["teacher.keras", None, 3, object])
def test_what_is_no_teacher(other):
    with pytest.raises(
        ValueError,
        match=r"Received teacher=.*a keras.Model or a tf_keras.Model.*pass it as `teacher`",
    ):
        keras_kd.Distiller(other, model())


@pytest.mark.parametrize("other", ["student.keras", None, keras.layers.Dense(3), object])
def test_what_is_no_student(other):
    with pytest.raises(
        ValueError,
        match=r"Received student=.*a keras.Model or a tf_keras.Model.*pass it as `student`",
    ):
        keras_kd.Distiller(model(), other)


def test_one_model_is_not_its_own_teacher():
    one = model(name="one")
    with pytest.raises(ValueError, match=r"the model 'one' as teacher and as student.*clone_model"):
        keras_kd.Distiller(one, one)
    assert one.trainable


def test_a_layer_that_does_not_exist_is_named_with_those_that_do():
    loss = keras.distillation.FeatureDistillation(
        teacher_layer_name="nowhere", student_layer_name="nowhere"
    )
    with pytest.raises(ValueError, match=r"nowhere.*dense"):
        keras_kd.Distiller(model(), model(), loss)


def test_missing_outputs_are_named():
    def named(*names):
        inputs = keras.Input((5,))
        return keras.Model(inputs, {name: keras.layers.Dense(3)(inputs) for name in names})

    with pytest.raises(
        ValueError, match=r"the teacher has \['a'\] and the student \['a', 'b'\].*\['b'\]"
    ):
        keras_kd.Distiller(named("a"), named("a", "b"), SoftTargets(outputs=["a", "b"]))
    keras_kd.Distiller(named("a"), named("a", "b"), LogitsMSE(outputs="a"))


def test_a_teacher_set_later_is_checked_too(teacher, student):
    distiller = keras_kd.Distiller(teacher, student)
    with pytest.raises(ValueError, match="classes"):
        distiller.teacher = model(classes=4)
    assert distiller.teacher.model is teacher


OLD = {
    "student_loss_fn": "mse",
    "distillation_loss_fn": keras.losses.KLDivergence(),
    "alpha": 0.1,
    "temperature": 10,
}


class TestArgumentsOfOlderExamples:
    @pytest.mark.parametrize("names", [*([name] for name in OLD), list(OLD)], ids=str)
    @pytest.mark.parametrize("place", ["constructor", "compile"])
    @pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
    def test_the_message_says_what_to_write(self, teacher, student, names, place, flavour):
        if flavour == "tf_keras":
            student = keras_kd.compression.to_tf_keras(student)
        old = {name: OLD[name] for name in names}

        def construct():
            return keras_kd.Distiller(student=student, teacher=teacher, **old)

        def compile_with_them():
            distiller = keras_kd.Distiller(student=student, teacher=teacher)
            distiller.compile(optimizer="adam", metrics=["accuracy"], **old)

        call = construct if place == "constructor" else compile_with_them
        with pytest.raises(TypeError, match=f"Received {', '.join(names)}, arguments of") as caught:
            call()
        advised = re.search(r"build (keras_kd\.Distiller\(.*?\)), the teacher", str(caught.value))
        names = {"keras_kd": keras_kd, "teacher": teacher, "student": student}
        distiller = eval(advised[1], names)
        distiller.compile("adam", loss="mse", metrics=["accuracy"], run_eagerly=True)
        if "alpha" in old:
            assert distiller.student_loss_weight == 0.1
        if "temperature" in old:
            assert distiller.distillation_losses[0].temperature == 10

    def test_the_teacher_comes_first(self, dense_model):
        teacher, student = dense_model(name="teacher"), dense_model(name="student")
        with pytest.raises(ValueError, match=r"the teacher first.*Distiller\(teacher, student\)"):
            keras_kd.Distiller(student, teacher)
        keras_kd.Distiller(teacher, student)
        # A student of before may teach.
        keras_kd.Distiller(student, dense_model(name="student_2"))
