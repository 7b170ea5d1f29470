import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import TFLiteModel, microcontroller
from keras_kd.tflite.microcontroller import running

needs_tflm = pytest.mark.skipif(
    not microcontroller.is_installed(), reason="tflite-micro is not installed"
)


@needs_tflm
def test_runs_and_measures_the_arena(micro_model, images):
    run = microcontroller.run(micro_model, images)
    assert run.stored_outputs["output"].shape == (64, 10)
    assert run.stored_outputs["output"].dtype == np.int8
    np.testing.assert_allclose(run.outputs["output"], micro_model.predict(images), atol=0.05)
    # At least the input and the output of the convolution; the file is not part of it.
    assert 8 * 8 + 6 * 6 * 8 < run.arena_bytes < 20_000


@needs_tflm
def test_several_inputs_keep_their_names(make_student):
    student, data = make_student("several inputs and outputs")
    model = tflite.convert(student, "int8", data, "microcontroller")
    run = microcontroller.run(model, data)
    expected = model.run_stored(model.quantize_inputs(data), kernels="builtin")
    assert run.stored_outputs.keys() == expected.keys()
    for name in expected:
        assert abs(run.stored_outputs[name] - expected[name].astype(int)).max() <= 1


@needs_tflm
@pytest.mark.parametrize(
    ("quantization", "reason"),
    [("float16", "DEQUANTIZE"), ("dynamic_int8", "FLOAT32 with filter type: INT8")],
)
def test_the_reason_for_a_refusal_is_shown(student, images, quantization, reason, capfd):
    model = tflite.convert(student, quantization)
    with pytest.raises(ValueError, match=rf"TensorFlow Lite Micro refuses \(.*{reason}"):
        microcontroller.run(model, images)
    assert capfd.readouterr() == ("", "")


@needs_tflm
def test_damaged_bytes_end_in_litert(micro_model, images, monkeypatch):
    model = TFLiteModel(micro_model.content)
    model.predict(images)
    damaged = bytearray(micro_model.content)
    damaged[:64] = bytes(64)
    monkeypatch.setattr(model, "content", bytes(damaged))
    monkeypatch.setattr(model, "_interpreters", {})
    with pytest.raises(ValueError, match="LiteRT cannot load"):
        microcontroller.run(model, images)


@needs_tflm
def test_a_crash_of_tflm_is_an_error_and_not_the_end(micro_model, images, replace_worker):
    replace_worker("import os; os.abort()")
    with pytest.raises(ValueError, match="its process was ended by signal 6"):
        microcontroller.run(micro_model, images)


@needs_tflm
def test_no_example(micro_model, images):
    with pytest.raises(ValueError, match=r"no example.*at least one"):
        microcontroller.run(micro_model, images[:0])


def test_without_tflm_the_extra_is_named(micro_model, images, monkeypatch):
    monkeypatch.setattr(running, "is_installed", lambda: False)
    with pytest.raises(ImportError, match=r"pip install 'keras-kd\[micro\]'"):
        microcontroller.run(micro_model, images)


def test_without_tflm_conversion_works(student, images, monkeypatch):
    monkeypatch.setattr(running, "is_installed", lambda: False)
    assert tflite.convert(student, "int8", images, "microcontroller").size > 0


@needs_tflm
def test_what_never_ends_is_ended(micro_model, images, monkeypatch, replace_worker):
    replace_worker("import time; time.sleep(600)")
    monkeypatch.setattr(running, "_SECONDS_TO_START", 0.2)
    monkeypatch.setattr(running, "_SECONDS_PER_EXAMPLE", 0.1)
    with pytest.raises(ValueError, match=r"it took over 0\.6 seconds"):
        microcontroller.run(micro_model, images[:4])


@needs_tflm
def test_inputs_of_any_length_are_refused():
    student = keras.Sequential([keras.Input((None, 3)), keras.layers.Conv1D(4, 3)])
    model = tflite.convert(student)
    with pytest.raises(ValueError, match=r"\[1, any, 3\]\. Expected inputs of a fixed size"):
        microcontroller.run(model, np.zeros((2, 9, 3), np.float32))
    with pytest.raises(ValueError, match="inputs of a fixed size"):
        microcontroller.write_c_source(model, "nowhere", arena_bytes=1000)


@needs_tflm
def test_resource_variables_begin_with_their_first_values_in_each_example(with_variables):
    model, ones = with_variables(), np.ones((3, 4), np.float32)
    run = microcontroller.run(model, ones)
    np.testing.assert_array_equal(run.outputs["y"][:, 0], [1.25] * 3)
    stream = microcontroller.run(model, ones, stream=True)
    np.testing.assert_array_equal(stream.outputs["y"][:, 0], [1.25, 1.625, 1.8125])
    assert microcontroller.check_agreement(model, ones).equal == 1
