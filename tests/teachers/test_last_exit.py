"""The last exit of a student as the teacher of the others."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_kd
from keras_kd._logits import recognise_logits
from keras_kd.losses import SoftTargets
from keras_kd.taps import Tapped
from keras_kd.teachers import LastExit


def exits_model(names=None, activation=None, sizes=(3, 3, 3)):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((5,))
    hidden, exits = inputs, []
    for number, size in enumerate(sizes):
        hidden = keras.layers.Dense(4, activation="tanh", name=f"block{number}")(hidden)
        exit_ = keras.layers.Dense(size, activation=activation, name=f"exit{number}")
        exits.append(exit_(hidden))
    outputs = exits if names is None else dict(zip(names, exits, strict=True))
    return keras.Model(inputs, outputs[0] if len(sizes) == 1 else outputs, name="student")


def test_every_exit_is_taught_by_the_last(examples):
    outputs = exits_model()(examples[0])
    said = LastExit()(examples[0], Tapped(outputs, {})).outputs
    assert isinstance(said, list)
    for each in said:
        np.testing.assert_array_equal(each, outputs[-1])


def test_the_named_exit_teaches(examples):
    outputs = exits_model(["z", "a", "m"])(examples[0])
    said = LastExit("z")(examples[0], Tapped(outputs, {})).outputs
    assert set(said) == {"z", "a", "m"}
    for each in said.values():
        np.testing.assert_array_equal(each, outputs["z"])
    listed = exits_model()(examples[0])
    said = LastExit(0)(examples[0], Tapped(listed, {})).outputs
    np.testing.assert_array_equal(said[2], listed[0])


def test_a_softmax_is_still_recognised(examples):
    student = exits_model(activation="softmax")
    outputs = student(examples[0])
    said = LastExit()(examples[0], Tapped(outputs, {})).outputs
    seen = recognise_logits(said[0])
    assert seen.activation == "softmax"
    np.testing.assert_array_equal(seen.logits, recognise_logits(outputs[-1]).logits)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_no_gradient_reaches_the_last_exit(examples, activation):
    student = exits_model(activation=activation)
    with tf.GradientTape() as tape:
        outputs = student(examples[0])
        said = LastExit()(examples[0], Tapped(outputs, {})).outputs
        value = SoftTargets(2.0).compute_loss(said, outputs)
    kernels = [student.get_layer(f"exit{number}").kernel.value for number in range(3)]
    first, second, last = tape.gradient(value, kernels)
    assert float(ops.max(ops.abs(first))) > 1e-3
    assert float(ops.max(ops.abs(second))) > 1e-3
    np.testing.assert_allclose(last, np.zeros_like(last), atol=1e-7)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (lambda: exits_model(sizes=(3,)), LastExit(), r"a student with one output"),
        (lambda: exits_model(["a", "b", "c"]), LastExit(), r"name one of a dict of outputs"),
        (lambda: exits_model(["a", "b", "c"]), LastExit("d"), r"LastExit\(output='d'\)"),
        (lambda: exits_model(), LastExit(3), r"the outputs \[0, 1, 2\] for LastExit\(output=3\)"),
        (lambda: exits_model(sizes=(3, 2)), LastExit(), r"Expected exits of one shape, that of 1"),
    ],
)
def test_students_that_it_cannot_teach(student, teacher, message, examples):
    student = student()
    with pytest.raises(ValueError, match=message):
        teacher.meet(student)
    with pytest.raises(ValueError, match=message):
        teacher(examples[0], Tapped(student(examples[0]), {}))


@pytest.mark.parametrize("output", [0.5, True, ["a"]])
def test_output_is_a_name_or_an_index(output):
    with pytest.raises(TypeError, match="Expected the name or index of an output of the student"):
        LastExit(output)


def test_features_are_those_of_the_student():
    teacher = LastExit()
    teacher.tap(["block2"])
    assert teacher.student_layer_names == ["block2"]
    exits = [ops.ones((2, 3))] * 2
    said = teacher(None, Tapped(exits, {"block2": ops.ones((2, 4)), "block0": ops.ones((2, 4))}))
    assert list(said.features) == ["block2"]


def test_configuration_round_trip():
    config = keras.saving.serialize_keras_object(LastExit("late", name="mine"))
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, LastExit)
    assert again.get_config() == {"output": "late", "name": "mine"}


class TestTraining:
    @pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
    def test_early_exits_come_to_agree_with_the_last(self, examples, jit_compile):
        x, _ = examples
        student = exits_model()
        last_before = np.asarray(student(x)[-1])
        # Only the early exits learn here, so that the last one stays what it is.
        for layer in student.layers:
            layer.trainable = layer.name in ("exit0", "exit1")
        distiller = keras_kd.Distiller(
            LastExit(), student, SoftTargets(2.0), student_loss_weight=0.0
        )
        distiller.compile(keras.optimizers.Adam(0.1), jit_compile=jit_compile)
        before = distiller.evaluate(x, verbose=0, return_dict=True)["distillation_loss"]
        distiller.fit(x, epochs=15, batch_size=20, verbose=0)
        after = distiller.evaluate(x, verbose=0, return_dict=True)["distillation_loss"]
        assert after < 0.5 * before
        np.testing.assert_array_equal(student(x)[-1], last_before)

    def test_deep_features_teach_early_ones(self, examples):
        student = exits_model()
        hint = keras_kd.losses.Hint("block2", "block0")
        distiller = keras_kd.Distiller(LastExit(), student, hint, student_loss_weight=0)
        distiller.compile("sgd")
        block0, block1, block2 = (student.get_layer(f"block{number}") for number in range(3))
        early = block0(examples[0])
        expected = np.mean((np.asarray(block2(block1(early))) - np.asarray(early)) ** 2)
        logs = distiller.evaluate(examples[0], batch_size=20, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.slow
    def test_with_labels_for_every_exit_and_a_file(self, examples, tmp_path):
        x, y = examples
        names = ["early", "middle", "late"]
        student = exits_model(names, activation="softmax")
        distiller = keras_kd.Distiller(LastExit("late"), student)
        distiller.compile("sgd", dict.fromkeys(names, "sparse_categorical_crossentropy"))
        distiller.fit(x, dict.fromkeys(names, y), verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        assert loaded.teacher.output == "late"
        kwargs = {"verbose": 0, "return_dict": True}
        expected = distiller.evaluate(x, dict.fromkeys(names, y), **kwargs)["distillation_loss"]
        received = loaded.evaluate(x, dict.fromkeys(names, y), **kwargs)["distillation_loss"]
        assert received == pytest.approx(expected, rel=1e-5)
