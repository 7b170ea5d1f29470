"""Attention with masks in 8 bits: masked places have no weight, the others keep their precision."""

import keras
import numpy as np
import pytest

from keras_kd import compression, tflite
from keras_kd.tflite.contents.packing import unpacked
from keras_kd.tflite.conversion.masked_softmax import with_bounded_masks

layers, ops = keras.layers, keras.ops
LENGTH, WIDTH = 10, 8


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(64, LENGTH, WIDTH)).astype("float32")
    counts = np.arange(64) % (LENGTH - 1) + 2
    return {"x": x, "mask": np.arange(LENGTH) < counts[:, None]}


def multi_head(x, mask):
    return layers.MultiHeadAttention(2, 4)(x, x, key_mask=mask, value_mask=mask)


def attention(x, mask):
    return layers.Attention()([x, x], mask=[mask, mask])


def chosen(x, mask):
    scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    return ops.matmul(ops.softmax(ops.where(mask[:, None, :], scores, -1e9)), x)


def added(x, mask):
    scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    bias = (1.0 - ops.cast(mask, "float32")) * -1e9
    return ops.matmul(ops.softmax(scores + bias[:, None, :]), x)


def added_twice(x, mask):
    """A constant one that looks back only, and that of the padding."""
    scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
    back = np.triu(np.full((LENGTH, LENGTH), -1e9, "float32"), 1)
    bias = (1.0 - ops.cast(mask, "float32")) * -1e9
    return ops.matmul(ops.softmax(scores + back + bias[:, None, :]), x)


KINDS = [multi_head, attention, chosen, added, added_twice]


def student_of(kind):
    keras.utils.set_random_seed(1)
    x = keras.Input((LENGTH, WIDTH), name="x")
    mask = keras.Input((LENGTH,), dtype="bool", name="mask")
    # Only the first place is looked at: it is never masked.
    attended = kind(layers.Dense(WIDTH)(x), mask)[:, 0]
    return keras.Model({"x": x, "mask": mask}, layers.Dense(6)(attended))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_in_tf_keras", [False, True])
def test_masked_places_have_no_weight_and_others_keep_their_precision(kind, is_in_tf_keras, data):
    student = student_of(kind)
    expected = student.predict(data, verbose=0)
    if is_in_tf_keras:
        student = compression.to_tf_keras(student)

    model = tflite.convert(student, "int8", data)

    assert model.flatbuffer.float_operators() == []
    outputs = model.predict(data)
    assert np.abs(outputs - expected).max() < 0.06 * np.ptp(expected)
    others = np.where(data["mask"][..., None], data["x"], data["x"][::-1])
    np.testing.assert_array_equal(model.predict({**data, "x": others}), outputs)


def test_scores_that_are_only_low_are_no_mask(data):
    x = keras.Input((LENGTH, WIDTH))
    student = keras.Model(x, layers.Softmax()(layers.Dense(6)(x) + -30.0))
    model = unpacked(tflite.convert(student).content)
    before = len(model.subgraphs[0].tensors)

    assert with_bounded_masks(model, lambda each: each) is model
    assert len(model.subgraphs[0].tensors) == before


@pytest.mark.slow
def test_a_masked_transformer_that_learned_its_integers(data):
    """TF-MOT leaves attention in float: its ranges come from the data, as of any student."""
    keras.utils.set_random_seed(0)
    words = keras.Input((LENGTH,), dtype="int32", name="words")
    x = layers.Embedding(50, 16, mask_zero=True)(words)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 8)(x, x)]))
    student = keras.Model(words, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    given = np.random.default_rng(0).integers(1, 50, (64, LENGTH)) * data["mask"]
    given = given.astype("int32")
    aware = compression.quantize_aware(student, given)
    with pytest.raises(ValueError, match=r"To fix it: pass representative_data"):
        tflite.convert(aware, "int8")

    model = tflite.convert(aware, "int8", given)

    assert model.flatbuffer.float_operators() == []
    expected = aware.predict(given, verbose=0)
    assert np.abs(model.predict(given) - expected).max() < 0.1 * np.ptp(expected)
