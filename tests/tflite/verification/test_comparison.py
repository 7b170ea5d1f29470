import json

import keras
import numpy as np
import pytest

from keras_kd import tflite


@pytest.fixture(scope="module")
def labels(float_model, images):
    labels = float_model.predict(images).argmax(-1)
    labels[:16] = (labels[:16] + 1) % 10
    return labels


@pytest.fixture(scope="module")
def comparison(float_model, micro_model, images, labels):
    return float_model.compare({"int8": micro_model}, images, labels)


def test_files_side_by_side(comparison, float_model, micro_model, images, labels):
    first, other = comparison.rows
    assert comparison.examples == 64
    assert (first.name, first.agreement, first.largest_difference) == ("this file", 1.0, 0.0)
    assert first.accuracy == 0.75
    outputs = micro_model.predict(images)
    assert (other.size, other.compressed_size) == (micro_model.size, micro_model.compressed_size)
    assert other.accuracy == (outputs.argmax(-1) == labels).mean()
    difference = np.abs(outputs - float_model.predict(images))
    assert other.largest_difference == pytest.approx(difference.max(), abs=1e-7)
    assert other.mean_difference == pytest.approx(difference.mean(), abs=1e-7)
    assert other.latency_microseconds > 0


def test_rows_are_found_by_name(comparison):
    assert comparison["int8"] is comparison.rows[1]
    with pytest.raises(KeyError, match=r"'int4'.*'this file', 'int8'"):
        comparison["int4"]


def test_a_table_and_json(comparison, float_model, micro_model, images):
    lines = str(comparison).splitlines()
    assert lines[0] == "64 examples"
    assert lines[1].split()[0] == "file"
    assert lines[1].endswith("accuracy %")
    assert lines[3].startswith("int8 ")
    assert f"{micro_model.size:,}" in lines[3]
    plain = comparison.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert [row["name"] for row in plain["rows"]] == ["this file", "int8"]
    without_labels = float_model.compare({"int8": micro_model}, images[:3])
    assert "accuracy" not in str(without_labels)
    assert without_labels.rows[1].accuracy is None


def test_what_cannot_be_compared(float_model, micro_model, images):
    with pytest.raises(ValueError, match="no other file"):
        float_model.compare({}, images)
    with pytest.raises(ValueError, match="a file called 'this file'"):
        float_model.compare({"this file": micro_model}, images)
    with pytest.raises(TypeError, match=r"other files in a list.*a dict of models by name"):
        float_model.compare([micro_model], images)
    with pytest.raises(TypeError, match=r"int8='x.tflite'. Expected a TFLiteModel"):
        float_model.compare({"int8": "x.tflite"}, images)
    layers = [keras.layers.Flatten(), keras.layers.Dense(3, name="kind")]
    other = keras.Sequential([keras.Input((8, 8, 1), name="image"), *layers])
    with pytest.raises(ValueError, match=r"smaller: Received a file with the outputs \{'kind'"):
        float_model.compare({"smaller": tflite.convert(other)}, images)
