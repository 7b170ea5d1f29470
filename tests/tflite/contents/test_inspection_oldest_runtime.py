import importlib.util

import keras
import numpy as np
import pytest

from keras_kd import tflite

IMAGES = np.random.default_rng(0).random((8, 8, 8, 2), np.float32)


def student(*body):
    head = [keras.layers.Flatten(), keras.layers.Dense(30, name="scores")]
    return keras.Sequential([keras.Input((8, 8, 2), name="image"), *body, *head])


@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None, reason="no ai-edge-quantizer"
)
@pytest.mark.parametrize(
    ("body", "form", "oldest"),
    [
        # Each was tried in the version and in the one before; the file says 1.5.0.
        ([keras.layers.Conv2D(16, 3)], "int4", "2.19.0"),
        ([], "int4", "2.14.0"),
        ([], "dynamic_int8", "2.16.2"),
        ([], "float16", "1.5.0"),
    ],
)
def test_what_ai_edge_quantizer_does_not_say(body, form, oldest):
    model = tflite.convert(student(*body), recipe={"*": form})
    stored = model.flatbuffer.metadata("min_runtime_version").rstrip(b"\0")
    assert stored == b"1.5.0"
    inspection = model.inspect()
    assert inspection.minimum_runtime == oldest
    assert f"oldest runtime: TensorFlow Lite {oldest}" in str(inspection)
    assert ("LiteRT 1.1.1" in str(inspection)) == (oldest == "2.19.0")


def test_what_the_converter_says_stays():
    """It asks for a version that knows scales for each channel of a dense layer."""
    model = tflite.convert(student(), "dynamic_int8")
    assert model.inspect().minimum_runtime == "2.17.0"


def test_a_file_that_says_nothing():
    model = tflite.convert(student())
    silent = tflite.TFLiteModel(model.flatbuffer.with_metadata("min_runtime_version", b""))
    assert silent.inspect().minimum_runtime is None
    assert "oldest runtime: unknown" in str(silent.inspect())
    other = tflite.TFLiteModel(model.flatbuffer.with_metadata("min_runtime_version", b"9" * 5000))
    assert other.inspect().minimum_runtime == "9" * 5000
