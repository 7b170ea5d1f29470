import re

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.conversion.convert import first_accepted
from keras_kd.tflite.student import Signature

layers = keras.layers
needs_tflm = pytest.mark.skipif(
    not microcontroller.is_installed(), reason="tflite-micro is not installed"
)


def _sequential(shape, *of):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input(shape), *of])


def _numbers(*shape):
    return np.random.default_rng(0).normal(size=(32, *shape)).astype("float32")


CASES = {
    "nearest neighbours": (
        lambda: _sequential((6, 6, 2), layers.UpSampling2D(2), layers.Conv2D(2, 3)),
        (6, 6, 2),
        "int8",
        "microcontroller",
        "RESIZE_NEAREST_NEIGHBOR",
        r"operators TILE",
    ),
    "unit vectors": (
        lambda: _sequential((12,), layers.Dense(8), layers.UnitNormalization()),
        (12,),
        "int8",
        "android",
        "L2_NORMALIZATION",
        r"SQUARE compute in floating point",
    ),
    "open sizes": (
        lambda: _sequential((None, None, 2), layers.UpSampling2D(2), layers.Conv2D(2, 3)),
        (6, 6, 2),
        "float32",
        "android",
        "RESIZE_NEAREST_NEIGHBOR",
        r"Conv2D in the layer 'conv2d\w*' on sizes that it leaves open",
    ),
    "images over time": (
        lambda: _sequential(
            (3, 6, 6, 1),
            layers.TimeDistributed(layers.Conv2D(2, 3)),
            layers.TimeDistributed(layers.Flatten()),
            layers.LSTM(4),
        ),
        (3, 6, 6, 1),
        "float32",
        "microcontroller",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        r"TensorFlow Lite Micro refuses",
    ),
}


@needs_tflm
@pytest.mark.parametrize("kind", CASES)
def test_what_is_refused_is_converted_as_tf_keras_computes_it(kind):
    make, shape, form, target, operator, reason = CASES[kind]
    student, data = make(), _numbers(*shape)
    model = tflite.convert(
        student, form, data if form == "int8" else None, target, verification_data=data
    )
    assert operator in model.operators
    [note] = model.verification.notes
    assert note.startswith("converted as keras_kd.compression.to_tf_keras(student); refused as it")
    assert len(note) < 250
    assert re.search(reason, note)
    assert str(model.verification).count(note) == 1
    # What was compared is the student as it was given.
    expected = student.predict(data, verbose=0)
    error = np.abs(model.predict(data).reshape(expected.shape) - expected)
    assert error.max() < (0.1 if form == "int8" else 1e-5)


def test_outputs_keep_the_names_of_the_student():
    vector = keras.Input((12,))
    x = layers.Dense(8)(vector)
    student = keras.Model(vector, layers.UnitNormalization()(x) + x)
    model = tflite.convert(student, "int8", _numbers(12))
    assert model.verification.notes
    assert [output.name for output in model.outputs] == student.output_names


def test_what_converts_as_it_is_has_no_notes(float_model):
    assert float_model.verification.notes == ()


def test_the_first_refusal_is_told(student, float_model):
    tried = []

    def finished(content, notes):
        tried.append(notes)
        raise ValueError(f"Received number {len(tried)}. Expected one. To fix it: nothing.")

    with pytest.raises(ValueError, match="Received number 1"):
        first_accepted(
            Signature(student),
            lambda _: FlatBufferModel(float_model.content),
            finished,
            lambda content: (content, ("TILE",)),
        )
    assert [len(notes) for notes in tried] == [0, 1, 1, 2]
    assert "TILE written as CONCATENATION" in tried[2][0]


def test_a_form_that_does_not_convert_is_tried_once(student):
    tried = []

    def refused(signature):
        tried.append(type(signature.model).__module__.split(".")[0])
        raise ValueError(f"Received {tried[-1]}. Expected another. To fix it: nothing.")

    with pytest.raises(ValueError, match="Received keras"):
        first_accepted(Signature(student), refused, None, lambda content: (content, ("TILE",)))
    assert tried == ["keras", "tf_keras"]


@needs_tflm
def test_advice_that_was_followed_is_not_given():
    words = keras.Input((4,), dtype="int32")
    x = layers.Embedding(9, 3, mask_zero=True)(words)
    student = keras.Model(words, layers.GRU(2, unroll=True)(x))
    data = np.random.default_rng(0).integers(0, 9, (32, 4)).astype("int32")
    with pytest.raises(ValueError, match="BOOL") as caught:
        tflite.convert(student, "int8", data, target="microcontroller")
    assert "to_tf_keras" not in str(caught.value)


def test_a_student_that_nothing_helps_is_refused_as_before():
    student = _sequential((12,), layers.Dense(8, activation="elu"))
    with pytest.raises(ValueError, match=r"Received a file in which ELU compute in floating point"):
        tflite.convert(student, "int8", _numbers(12))
