import dataclasses

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import android
from keras_kd.tflite.android import Metadata, ScoreCalibration, normalization
from keras_kd.tflite.android.metadata import calibration_from_csv, kind_of_input
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.tables import TableReader

NAMES = ["a", "b", "c"]


def test_values_are_stored_in_one_form():
    metadata = Metadata(NAMES, mean=127, std=[1, 2, 3])
    assert metadata.class_names == ("a", "b", "c")
    assert metadata.mean == (127.0,)
    assert metadata.std == (1.0, 2.0, 3.0)
    assert dataclasses.replace(metadata) == metadata


def test_by_default_pixels_stay_as_they_are():
    assert (Metadata(NAMES).mean, Metadata(NAMES).std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255), (-123.7, 131.3), (5, 6)])
def test_normalization_brings_pixels_to_the_range(low, high):
    mean, std = normalization(low, high)
    pixels = np.array([0, 100, 255])
    expected = pixels / 255 * (high - low) + low
    np.testing.assert_allclose((pixels - mean) / std, expected, atol=1e-9)


def test_usual_normalizations():
    assert [str(number) for number in normalization(0, 1)] == ["0.0", "255.0"]
    assert normalization(-1, 1) == (127.5, 127.5)
    assert normalization(0, 255) == (0, 1)


@pytest.mark.parametrize(
    ("low", "high", "error", "message"),
    [
        (1, 0, ValueError, "high=0.*above 1"),
        (0, 0, ValueError, "high=0"),
        (0, float("inf"), ValueError, "high=inf"),
        ("0", 1, TypeError, "low='0'"),
    ],
)
def test_ranges_that_are_none(low, high, error, message):
    with pytest.raises(error, match=message):
        normalization(low, high)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_kind": "sound"}, ValueError, "input_kind='sound'.*'audio'"),
        ({"input_kind": "audio"}, ValueError, "'audio' with sample_rate=None.*sample_rate=16000"),
        ({"input_kind": "numbers", "sample_rate": 8000}, ValueError, "spectrograms"),
        ({"sample_rate": 0}, ValueError, "sample_rate=0.*at least 1"),
        ({"name": None}, TypeError, "name=None"),
        ({"version": 1.0}, TypeError, "version=1.0.*pass version='1.0'"),
        ({"author": "\x1b[2J"}, ValueError, "author=.*control characters"),
        ({"license": "\ud800"}, ValueError, "license=.*control characters"),
        ({"mean": (1.0, 2.0)}, ValueError, r"mean=\(1.0, 2.0\).*one for each of three channels"),
        ({"mean": "127"}, TypeError, "mean='127'"),
        ({"std": 0}, ValueError, "std=0.*above 0"),
        ({"std": (1, -1, 1)}, ValueError, "std=-1"),
        ({"std": float("inf")}, ValueError, "std=inf"),
        ({"score_calibration": [(1, 2, 3)]}, TypeError, "score_calibration of type list"),
        (
            {"score_calibration": ScoreCalibration([(1, 2, 3)])},
            ValueError,
            "calibration of 1 classes.*as many as there are class names, 3",
        ),
    ],
)
def test_what_cannot_be_metadata(options, error, message):
    with pytest.raises(error, match=message):
        Metadata(**{"class_names": NAMES, **options})


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


ROWS = [(1.0, 2.0, -0.5), None, (0.5, 3.25, 1e-7, 0.125), None]


def test_the_file_has_a_line_for_each_class():
    calibration = ScoreCalibration(ROWS)
    assert calibration.to_csv() == "1.0,2.0,-0.5\n\n0.5,3.25,1e-07,0.125\n"
    assert len(calibration.to_csv().split("\n")) == 4


def test_round_trip():
    calibration = ScoreCalibration(ROWS, "log", 0.5)
    assert calibration_from_csv(calibration.to_csv(), "log", 0.5) == calibration


def test_integers_become_floats():
    assert ScoreCalibration([[1, 2, 3], None]).sigmoids == ((1.0, 2.0, 3.0), None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigmoids": []}, ValueError, "at least one class"),
        ({"sigmoids": [None, None]}, ValueError, "at least one class"),
        ({"sigmoids": [(1, 2)]}, ValueError, r"sigmoids\[0\]=\(1, 2\)"),
        ({"sigmoids": [None, (1, 2, 3, 4, 5)]}, ValueError, r"sigmoids\[1\]"),
        ({"sigmoids": [5]}, ValueError, r"sigmoids\[0\]=5"),
        ({"sigmoids": [(-1, 2, 3)]}, ValueError, "scale of class 0=-1.*at least 0"),
        ({"sigmoids": [(1, float("nan"), 3)]}, ValueError, "slope of class 0=nan"),
        ({"sigmoids": [(1, 2, "3")]}, TypeError, "offset of class 0='3'"),
        ({"sigmoids": ROWS, "transformation": "exp"}, ValueError, "'inverse_logistic'"),
        ({"sigmoids": ROWS, "default_score": None}, TypeError, "default_score=None"),
    ],
)
def test_what_cannot_be_a_calibration(options, error, message):
    with pytest.raises(error, match=message):
        ScoreCalibration(**options)


@pytest.mark.parametrize("text", ["a,b,c", "1,2", "1,,3", "", "1;2;3", "1,2,3\n\ufffd"])
def test_damaged_text(text):
    with pytest.raises(ValueError, match=r"^Received .* Expected .* To fix it: "):
        calibration_from_csv(text)
