import numpy as np
import pytest

from keras_kd.tflite import TFLiteModel
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.conversion.ends import reset_states

# What the file with a resource variable gives for ones, step by step.
HALVES = [1.25, 1.625, 1.8125, 1.90625, 1.953125]


def test_a_file_with_resource_variables_says_so(with_variables):
    variables = with_variables()
    assert variables.stateful
    assert variables.state.variables == 1
    assert variables.state.tensors == 0
    words = "1 variable kept between calls (ASSIGN_VARIABLE)"
    assert str(variables.state) == words
    assert f"bytes, stateful: {words}: x float32[1, 4] -> y float32[1, 4]>" in repr(variables)
    assert f"\nstate: {words}\n" in str(variables.inspect())
    assert variables.inspect().to_dict()["state"]["is_assigned"] is True


def test_variables_that_never_change_are_no_state(with_variables):
    model = with_variables(is_assigned=False)
    # TensorFlow Lite Micro needs room for it all the same, if the converter keeps it.
    assert model.operators.get("VAR_HANDLE", 0) == 0 or model.state.variables == 1
    assert not model.stateful
    assert str(model.inspect().state) == "none"


def test_a_file_with_a_fused_lstm_says_so(fused_lstm):
    assert fused_lstm.stateful
    assert fused_lstm.state.operators == ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
    assert (fused_lstm.state.tensors, fused_lstm.state.variables) == (2, 0)


def test_tensors_that_are_set_before_they_are_read_are_no_state(fused_lstm):
    model = TFLiteModel(FlatBufferModel(fused_lstm.content).changed(reset_states).content)
    assert not model.stateful
    assert "stateful" not in repr(model)


def test_files_without_state(float_model, micro_model):
    for model in (float_model, micro_model):
        assert not model.stateful
        assert model.inspect().state == model.state


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_each_example_begins_with_the_initial_state(with_variables, fused_lstm, kernels):
    ones = np.ones((3, 4), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(with_variables().predict(ones, kernels)[:, 0], [1.25] * 3)
    same = np.repeat(np.random.default_rng(0).normal(size=(1, 5, 3)).astype("float32"), 3, axis=0)
    outputs = fused_lstm.predict(same, kernels)
    np.testing.assert_array_equal(outputs, outputs[[0, 0, 0]])


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_in_a_stream_the_state_is_kept(with_variables, kernels, monkeypatch):
    ones = np.ones((5, 4), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(with_variables().predict_stream(ones, kernels)[:, 0], HALVES)
    # Also from one part that goes through the pipe to the next.
    monkeypatch.setattr("keras_kd.tflite.runtimes.litert._BYTES_AT_ONCE", 2 * ones[:1].nbytes)
    np.testing.assert_array_equal(with_variables().predict_stream(ones, kernels)[:, 0], HALVES)
