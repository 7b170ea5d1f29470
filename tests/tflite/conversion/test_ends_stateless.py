import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel, microcontroller
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.conversion.ends import reset_states

KERNELS = ["xnnpack", "builtin", "reference"]


def _data(count=64):
    return np.random.default_rng(0).normal(size=(count, 5, 3)).astype("float32")


@pytest.mark.parametrize("kernels", KERNELS)
def test_an_lstm_gives_the_same_in_every_call(fused_lstm, kernels):
    changed = FlatBufferModel(fused_lstm.content).changed(reset_states)
    model, data = TFLiteModel(changed.content), _data(6)
    expected = fused_lstm.predict(data, kernels)
    # A stream resets nothing: it is what an app does that just calls the file.
    assert np.abs(fused_lstm.predict_stream(data, kernels) - expected).max() > 0.01
    np.testing.assert_array_equal(model.predict_stream(data, kernels), expected)


@pytest.mark.skipif(not microcontroller.is_installed(), reason="needs tflite-micro")
def test_also_on_microcontrollers_and_in_integers():
    import tf_keras

    student, data = tf_keras.Sequential([tf_keras.Input((5, 3)), tf_keras.layers.LSTM(4)]), _data()
    model = tflite.convert(student, "int8", data, "microcontroller")
    assert model.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert not model.stateful
    calls = microcontroller.run(model, data, stream=True).stored_outputs
    alone = microcontroller.run(model, data).stored_outputs
    np.testing.assert_array_equal(calls["output"], alone["output"])
    for kernels in KERNELS:
        np.testing.assert_array_equal(
            model.predict_stream(data, kernels), model.predict(data, kernels)
        )


def test_files_without_state_stay_as_they_are(float_model):
    file = FlatBufferModel(float_model.content)
    assert file.changed(reset_states) is file
