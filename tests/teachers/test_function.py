"""Functions as teachers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_kd
from keras_kd.taps import Tapped
from keras_kd.teachers import Function, NumpyFunction


@keras.saving.register_keras_serializable(package="tests")
def first_three(x):
    return x[:, :3]


def test_keras_and_tensorflow_code(examples):
    x = examples[0]
    for function in (lambda x: ops.tanh(x), lambda x: tf.tanh(x), keras.layers.Activation("tanh")):
        np.testing.assert_allclose(Function(function)(x, None).outputs, np.tanh(x), rtol=1e-5)


def test_structures_are_kept():
    said = Function(lambda x: {"a": x, "b": [x, 2 * x]})(np.ones((1, 2)), None).outputs
    assert float(said["b"][1][0, 0]) == 2.0


def test_a_signature_of_a_saved_model(student, examples, tmp_path):
    student.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    signature = loaded.signatures["serving_default"]
    x = ops.convert_to_tensor(examples[0])
    said = Function(signature)(x, Tapped(student(x), {})).outputs
    np.testing.assert_allclose(said, student(x), rtol=1e-5)


def test_a_dict_of_one_stays_for_a_student_with_a_dict():
    x = ops.ones((1, 2))
    said = Function(lambda x: {"a": x})(x, Tapped({"a": x}, {})).outputs
    assert list(said) == ["a"]


@pytest.mark.parametrize("value", [None, "logits", [None], object()])
def test_what_is_no_tensor(value):
    with pytest.raises(ValueError, match="Expected a tensor, or a list or dict of tensors"):
        Function(lambda x: value)(np.ones((1, 2)), None)


def test_names():
    assert Function(first_three).name == "first_three"
    assert Function(first_three, name="mine").name == "mine"
    assert Function(keras.layers.Activation("tanh", name="layer")).name == "layer"


@pytest.mark.parametrize("kind", [Function, lambda function: NumpyFunction(function, (3,))])
def test_functions_have_no_layers(kind):
    teacher = kind(first_three)
    teacher.tap([])
    with pytest.raises(ValueError, match="since functions have no layers"):
        teacher.tap(["hidden"])


def test_what_cannot_be_called():
    with pytest.raises(TypeError, match=r"function=3 of type int. Expected a function"):
        Function(3)


class TestNumpyFunction:
    def test_arrays_go_in_and_shapes_come_out(self, examples):
        received = []

        def function(x):
            received.append(type(x))
            return x[:, :3].astype("float64")

        teacher = NumpyFunction(function, (3,))
        step = tf.function(lambda x: teacher(x, None).outputs)
        traced = step.get_concrete_function(tf.TensorSpec((None, 5)))
        assert traced.outputs[0].shape.as_list() == [None, 3]
        said = step(examples[0])
        assert said.dtype == "float32"
        np.testing.assert_allclose(said, examples[0][:, :3])
        assert received == [np.ndarray]
        assert teacher.shapes(None).outputs.shape == (None, 3)

    def test_structures_of_inputs_and_outputs(self):
        teacher = NumpyFunction(
            lambda x: {"sum": x["a"] + x["b"], "flat": x["a"][:, 0]}, {"sum": (2,), "flat": ()}
        )
        said = teacher({"a": np.ones((3, 2)), "b": np.ones((3, 2))}, None).outputs
        np.testing.assert_allclose(said["sum"], np.full((3, 2), 2.0))
        assert said["flat"].shape == (3,)

    def test_free_sizes(self):
        teacher = NumpyFunction(lambda x: x, (None, 2))
        assert teacher(np.ones((3, 7, 2)), None).outputs.shape == (3, 7, 2)

    @pytest.mark.parametrize("size", [2, 4])
    def test_wrong_shapes(self, size):
        teacher = NumpyFunction(lambda x: x[:, :size], (3,))
        message = rf"shapes \[\(20, {size}\)\] .* Expected \[\(20, 3\)\] for 20 examples"
        with pytest.raises(ValueError, match=message):
            teacher(np.ones((20, 5)), None)
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            tf.function(lambda x: teacher(x, None).outputs)(np.ones((20, 5)))

    def test_wrong_number(self):
        teacher = NumpyFunction(lambda x: [x, x], (5,))
        with pytest.raises(ValueError, match="correct output_shape"):
            teacher(np.ones((20, 5)), None)

    def test_output_shape_is_a_shape(self):
        with pytest.raises(TypeError, match=r"output_shape=3. Expected the shape of one example"):
            NumpyFunction(first_three, 3)

    def test_it_cannot_be_compiled_by_xla(self):
        assert Function(first_three).supports_jit
        assert not NumpyFunction(first_three, (3,)).supports_jit


class TestSaving:
    def test_a_registered_function(self):
        teacher = NumpyFunction(first_three, [(3,)], dtype="float64", name="mine")
        for original in (teacher, Function(first_three)):
            again = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(original)
            )
            assert type(again) is type(original)
            assert again.get_config() == original.get_config()
            assert again.function is first_three

    @pytest.mark.parametrize(
        "function",
        [lambda x: x, keras.layers.Dense(3), "text".join],
        ids=["lambda", "layer", "bound"],
    )
    def test_others_are_refused(self, function):
        with pytest.raises(ValueError, match=r"save_teacher=False and set distiller.teacher after"):
            Function(function).get_config()


class TestTraining:
    @pytest.mark.fast_rows(1)
    @pytest.mark.parametrize(
        "teacher", [first_three, NumpyFunction(lambda x: x[:, :3], (3,))], ids=["ops", "numpy"]
    )
    def test_as_with_the_model_that_computes_the_same(self, dense_model, examples, teacher):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Lambda(lambda x: x[:, :3])])
        weights = []
        for each in (teacher, model):
            student = dense_model(seed=2)
            distiller = keras_kd.Distiller(each, student, student_loss_weight=0)
            distiller.compile("sgd", run_eagerly=True)
            distiller.fit(examples[0], batch_size=8, epochs=2, shuffle=False, verbose=0)
            weights.append(student.get_weights())
        for one, other in zip(*weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)

    def test_a_file_without_a_function_that_cannot_be_saved(
        self, student, examples, hard_loss, tmp_path
    ):
        distiller = keras_kd.Distiller(lambda x: x[:, :3], student, save_teacher=False)
        distiller.compile("sgd", hard_loss, run_eagerly=True)
        distiller.fit(*examples, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        loaded.teacher = lambda x: x[:, :3]
        assert loaded.evaluate(*examples, verbose=0) == pytest.approx(
            distiller.evaluate(*examples, verbose=0), rel=1e-5
        )

    def test_a_file_with_a_registered_function(self, student, examples, hard_loss, tmp_path):
        distiller = keras_kd.Distiller(first_three, student)
        distiller.compile("sgd", hard_loss, run_eagerly=True)
        distiller.fit(*examples, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        assert loaded.teacher.function is first_three
