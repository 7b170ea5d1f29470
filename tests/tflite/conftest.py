"""Tiny students of every kind, and files made from one of them."""

import functools
import warnings

import keras
import numpy as np
import pytest

from keras_kd import tflite


def _images():
    return np.random.default_rng(0).random((64, 8, 8, 1), np.float32)


def _layers(library):
    layers = library.layers
    return [
        layers.Conv2D(8, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(10, name="logits"),
    ]


def _sequential():
    return keras.Sequential([keras.Input((8, 8, 1)), *_layers(keras)]), _images()


def _functional():
    x = image = keras.Input((8, 8, 1), name="image")
    for layer in _layers(keras):
        x = layer(x)
    return keras.Model(image, keras.layers.Softmax()(x)), _images()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = _layers(keras)

    def call(self, x, training=False):
        for layer in self.body:
            x = layer(x, training=training)
        return {"scores": x}


def _subclassed():
    student = Subclassed()
    student(_images()[:2])
    return student, _images()


def _mixed_precision():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return _sequential()
    finally:
        keras.config.set_dtype_policy(previous)


def _several():
    first, second = keras.Input((40,), name="z"), keras.Input((40,), name="a")
    joined = keras.layers.Concatenate()([first, second])
    hidden = keras.layers.Dense(16, activation="relu")(joined)
    outputs = [keras.layers.Dense(3, name="kind")(hidden), keras.layers.Dense(4)(hidden)]
    rng = np.random.default_rng(0)
    data = {"z": rng.random((64, 40), np.float32), "a": rng.random((64, 40), np.float32)}
    return keras.Model([first, second], outputs), data


def _tf_keras():
    import tf_keras

    return tf_keras.Sequential([tf_keras.Input((8, 8, 1)), *_layers(tf_keras)]), _images()


def _quantization_aware():
    import tensorflow_model_optimization as tfmot

    student, images = _tf_keras()
    student = tfmot.quantization.keras.quantize_model(student)
    student.compile("sgd", "mse", run_eagerly=True)
    student.fit(images, np.random.default_rng(0).random((64, 10)), epochs=2, verbose=0)
    return student, images


_STUDENTS = {
    "sequential": _sequential,
    "functional": _functional,
    "subclassed": _subclassed,
    "mixed precision": _mixed_precision,
    "several inputs and outputs": _several,
    "tf_keras": _tf_keras,
    "quantization-aware": _quantization_aware,
}


@pytest.fixture(scope="session")
def make_student():
    """A function from a kind of student to one that must not be changed, and data for it."""

    @functools.cache
    def make(kind):
        keras.utils.set_random_seed(0)
        return _STUDENTS[kind]()

    return make


@pytest.fixture(scope="session")
def images():
    return _images()


@pytest.fixture(scope="session")
def student(make_student):
    return make_student("functional")[0]


@pytest.fixture(scope="session")
def float_model(student):
    return tflite.convert(student)


@pytest.fixture(scope="session")
def micro_model(student, images):
    return tflite.convert(student, "int8", images, "microcontroller")


@pytest.fixture(scope="session")
def is_refused():
    """A function from a call to whether it is refused, in one line."""

    def refused(function, *arguments):
        try:
            function(*arguments)
        except ValueError as error:
            message = str(error)
        else:
            return False
        assert message.startswith("Received "), message
        assert "\n" not in message
        return True

    return refused


def _halving(is_assigned):
    """A module of y = state = state / 2 + x, whose state begins with halves."""
    import tensorflow as tf

    class Halving(tf.Module):
        def __init__(self):
            self.state = tf.Variable(tf.fill((1, 4), 0.5))

        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])
        def call(self, x):
            value = self.state * 0.5 + x
            return {"y": self.state.assign(value) * 1.0 if is_assigned else value}

    return Halving()


def _as_others_convert(path):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
    converter.experimental_enable_resource_variables = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tflite.TFLiteModel(converter.convert())


@pytest.fixture(scope="session")
def with_variables(tmp_path_factory):
    """A function that makes a file with a resource variable, as streaming wake words have them.

    It computes y = state = state / 2 + x of four values, and its state begins with halves.
    """
    import tensorflow as tf

    @functools.cache
    def make(is_assigned=True):
        path, module = tmp_path_factory.mktemp("saved"), _halving(is_assigned)
        tf.saved_model.save(module, path, signatures={"serving_default": module.call})
        return _as_others_convert(path)

    return make


@pytest.fixture(scope="session")
def fused_lstm(tmp_path_factory):
    """A file with an LSTM whose states nothing sets back, as TensorFlow's converter makes it."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)])
    function = tf.function(lambda x: {"y": model(x, training=False)}).get_concrete_function(
        tf.TensorSpec((1, 5, 3), tf.float32, name="x")
    )
    # The model itself would be saved with a function for each way to call each of its layers.
    holder = tf.Module()
    holder.kept = model.weights
    path = tmp_path_factory.mktemp("saved")
    tf.saved_model.save(holder, path, signatures={"serving_default": function})
    return _as_others_convert(path)
