"""Class names of what is no image."""

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import android
from keras_kd.tflite.android.metadata import kind_of_input
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.tables import TableReader

L = keras.layers
NAMED = android.Metadata(["yes", "no", "perhaps"], name="Answers")


def classifier(*inputs, body=None):
    flat = [L.Flatten()(body(tensor) if body else tensor) for tensor in inputs]
    merged = flat[0] if len(flat) == 1 else L.Concatenate()(flat)
    return keras.Model(list(inputs), L.Dense(3, activation="softmax", name="scores")(merged))


def words():
    return classifier(keras.Input((4,), dtype="int32", name="words"), body=L.Embedding(9, 3))


STUDENTS = {
    "measurements": (lambda: classifier(keras.Input((5,), name="x")), "numbers"),
    "a series": (lambda: classifier(keras.Input((20, 6), name="x")), "numbers"),
    "two sensors": (
        lambda: classifier(keras.Input((5,), name="x"), keras.Input((2,), name="y")),
        "numbers",
    ),
    "satellites": (lambda: classifier(keras.Input((6, 6, 7), name="x")), "numbers"),
    "words": (words, "text"),
    "a picture": (lambda: classifier(keras.Input((6, 6, 3), name="x")), "image"),
}


@pytest.mark.parametrize("kind", STUDENTS)
def test_the_shape_decides(kind):
    make, expected = STUDENTS[kind]
    model = tflite.convert(make())
    assert kind_of_input(model, NAMED) == expected
    described = android.add_metadata(model, NAMED)
    assert android.read_metadata(described) == NAMED
    tensors = _inputs(described)
    assert len(tensors) == len(model.inputs)
    assert {_content(tensor) for tensor in tensors} == {2 if expected == "image" else 1}


def test_a_spectrogram_is_no_image():
    model = tflite.convert(classifier(keras.Input((20, 10, 1), name="spectrogram")))
    with pytest.raises(ValueError, match=r"grey image or a spectrogram.*input_kind='numbers'"):
        android.add_metadata(model, NAMED)
    told = android.Metadata(NAMED.class_names, input_kind="numbers")
    described = android.add_metadata(model, told)
    assert android.read_metadata(described) == told
    [tensor] = _inputs(described)
    assert _content(tensor) == 1
    assert list(tensor.tables(schema.Tensor.PROCESS_UNITS)) == []


def test_integers_for_apps_that_feed_them():
    """Only MediaPipe wants real numbers; for these inputs it has no task."""
    x = np.random.default_rng(0).random((32, 5), np.float32)
    student = classifier(keras.Input((5,), name="x"))
    model = tflite.convert(student, "int8", x, input_type="int8", output_type="int8")
    assert android.read_metadata(android.add_metadata(model, NAMED)) == NAMED


def test_recordings():
    model = tflite.convert(classifier(keras.Input((800,), name="recording")))
    told = android.Metadata(NAMED.class_names, sample_rate=16000)
    described = android.add_metadata(model, told)
    assert android.read_metadata(described) == told
    [tensor] = _inputs(described)
    assert _content(tensor) == schema.ContentProperties.AUDIO
    again = android.Metadata(NAMED.class_names, input_kind="audio", sample_rate=16000)
    assert android.add_metadata(model, again).content == described.content


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((800, 1), {"sample_rate": 8000}, r"recordings of shape \(1, samples\).*Reshape"),
        ((800,), {"sample_rate": 8000, "mean": 1.0}, r"mean=\(1.0,\).*an input of audio"),
    ],
)
def test_recordings_that_mediapipe_refuses(shape, options, message):
    model = tflite.convert(classifier(keras.Input(shape, name="recording")))
    with pytest.raises(ValueError, match=message):
        android.add_metadata(model, android.Metadata(NAMED.class_names, **options))


def _inputs(model):
    root = TableReader.root(model.flatbuffer.metadata(schema.ENTRY), schema.FILE_IDENTIFIER)
    [graph] = root.tables(schema.Model.SUBGRAPHS)
    return list(graph.tables(schema.Subgraph.INPUTS))


def _content(tensor):
    return tensor.table(schema.Tensor.CONTENT).number(schema.Content.PROPERTIES_TYPE, "<B")
