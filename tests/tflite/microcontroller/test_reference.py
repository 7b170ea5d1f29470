import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel
from keras_kd.tflite.microcontroller.reference import with_dense_as_convolution


@pytest.fixture(scope="module")
def dense_model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    student = keras.Sequential(
        [
            keras.Input((6, 40), name="x"),
            layers.Dense(64, activation="relu", use_bias=False),
            layers.Dense(32, bias_initializer="normal"),
        ]
    )
    data = np.random.default_rng(0).normal(size=(64, 6, 40)).astype(np.float32)
    return tflite.convert(student, "int8", data, "microcontroller"), data


def test_dense_layers_become_convolutions(dense_model):
    model, _ = dense_model
    rewritten = TFLiteModel(with_dense_as_convolution(model.content))
    assert model.operators["FULLY_CONNECTED"] == rewritten.operators["CONV_2D"] == 2
    assert "FULLY_CONNECTED" not in rewritten.operators
    assert (rewritten.inputs, rewritten.outputs) == (model.inputs, model.outputs)


def test_only_the_rounding_differs(dense_model):
    model, data = dense_model
    stored = model.quantize_inputs(data)
    (ours,) = (
        TFLiteModel(with_dense_as_convolution(model.content))
        .run_stored(stored, "reference")
        .values()
    )
    (theirs,) = model.run_stored(stored, "reference").values()
    differences = np.abs(ours.astype(int) - theirs)
    # If this is 0, LiteRT's FULLY_CONNECTED rounds as TFLM now, and nothing needs replacing.
    assert differences.max() == 1
    assert (differences == 0).mean() > 0.98


def test_what_has_no_dense_layer_stays(float_model):
    content = tflite.convert(
        keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3)])
    ).content
    assert with_dense_as_convolution(content) is content
    # Floats are not rounded to integers.
    assert with_dense_as_convolution(float_model.content) is float_model.content
