import hashlib
import json

import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.conversion.converter import Options, run_converter
from keras_kd.tflite.conversion.forms import FORMS
from keras_kd.tflite.conversion.signature import Signature


@pytest.fixture(scope="module")
def inspection(micro_model):
    return micro_model.inspect()


def test_an_integer_file(inspection, micro_model):
    assert inspection.size == micro_model.size == sum(inspection.bytes.values())
    assert inspection.operators == micro_model.operators
    assert inspection.float_operators == inspection.float_tensors == ()
    assert (inspection.inputs, inspection.outputs) == (micro_model.inputs, micro_model.outputs)
    assert inspection.schema_version == 3
    assert len(inspection.subgraphs) == 1
    assert "min_runtime_version" in inspection.metadata
    assert inspection.minimum_runtime.count(".") == 2
    assert inspection.sha256 == hashlib.sha256(micro_model.content).hexdigest()


def test_tensors_come_by_size(inspection):
    sizes = [tensor.bytes for tensor in inspection.tensors]
    assert sizes == sorted(sizes, reverse=True)
    dense, convolution = inspection.tensors[:2]
    assert (dense.type, dense.shape, dense.bytes) == ("INT8", (10, 288), 2880)
    assert (convolution.shape, convolution.scales) == ((8, 3, 3, 1), 8)
    assert sum(sizes) == inspection.bytes["weights"]


def test_what_stayed_in_float(student, images, float_model):
    in_float = float_model.inspect()
    assert "CONV_2D" in in_float.float_operators
    assert len(in_float.float_tensors) > 3
    phone = tflite.convert(student, "int8", images).inspect()
    # The inputs and outputs are floats, and nothing between them.
    assert phone.inputs[0].dtype == np.float32
    assert phone.float_tensors == phone.float_operators == ()


def test_bodies_of_loops_are_graphs():
    import keras

    student = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)])
    inspection = tflite.convert(student).inspect()
    assert len(inspection.subgraphs) == 3
    assert {tensor.subgraph for tensor in inspection.tensors} == {0, 1, 2}
    assert sum(inspection.bytes.values()) == inspection.size


def test_a_page_for_people(inspection, micro_model):
    text = str(inspection)
    assert "input   image   int8  [1, 8, 8, 1]" in text
    assert f"bytes         {inspection.size:,}" in text
    assert "FULLY_CONNECTED      1" in text
    assert "in floating point: no operator; no tensors between inputs and outputs" in text
    assert f"SHA-256: {inspection.sha256}" in text
    assert "2,880" in text
    assert max(map(len, text.splitlines())) <= 116


def test_many_tensors_and_long_names_are_cut():
    import keras

    layers = [
        keras.layers.Dense(3, activation="relu", name=f"{'very_' * 12}long_{i}") for i in range(14)
    ]
    student = keras.Sequential([keras.Input((3,)), *layers])
    content = run_converter(Signature(student), Options(FORMS["float32"]), None)
    inspection = tflite.TFLiteModel(content).inspect()
    text = str(inspection)
    stored = [tensor for tensor in inspection.tensors if tensor.bytes]
    assert f"and {len(stored) - 12} smaller ones" in text
    assert "\n..." in text
    assert max(map(len, text.splitlines())) <= 116


def test_json_has_all_of_it(inspection):
    plain = inspection.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["inputs"] == [
        {"name": "image", "shape": [1, 8, 8, 1], "dtype": "int8",
         "scale": inspection.inputs[0].scale, "zero_point": -128}
    ]  # fmt: skip
    assert plain["tensors"][0]["bytes"] == 2880
    assert plain["bytes"] == inspection.bytes
