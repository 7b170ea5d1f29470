import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import quantize_aware, summary


def student():
    image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="normalization")(x))
    y = layers.Conv2D(4, 1, name="side")(x)
    x = layers.Concatenate(name="both")([x, y])
    x = layers.Flatten(name="flat")(layers.Rescaling(0.5, name="half")(x))
    x = layers.Dense(5, activation="sigmoid", name="gate")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(x))


def test_every_layer_is_told():
    x = np.random.default_rng(0).uniform(0, 1, (40, 6, 6, 2)).astype("float32")
    aware = quantize_aware(student(), x, skip="logits", weight_bits=4, activation_bits=6)
    measured = summary(aware)
    notes = {row.name: row.note for row in measured.layers}
    assert notes == {
        "image": "",
        "conv": "folded with 'normalization'",
        "normalization": "rounded after 'relu'",
        "relu": "",
        "side": "rounded after 'both'",
        "both": "",
        "half": "computes in float: TF-MOT has no quantizer for Rescaling",
        "flat": "range of its input",
        "gate": "",
        "logits": "float: it was not chosen",
    }
    assert {row.name for row in measured.layers if row.quantization.is_float} == {"logits"}
    rows = {row.name: row.quantization for row in measured.layers}
    bits = {name: (row.weight_bits, row.per_channel) for name, row in rows.items()}
    assert {name: pair for name, pair in bits.items() if pair[0]} == {
        "conv": (4, True),
        "side": (4, True),
        "gate": (4, False),
    }
    assert {row.name for row in measured.layers if row.quantization.output_bits == 6} == {
        "image",
        "relu",
        "both",
        "half",
        "gate",
    }
    low, high = measured["image"].quantization.output_range
    assert (low, high) == pytest.approx((0, x.max()))
    lines = [line for line in str(measured).splitlines() if line.startswith("gate")]
    assert any("Dense" in line and "4 bits per tensor" in line for line in lines)
    with pytest.raises(KeyError):
        measured["nobody"]


def test_a_normalization_that_is_folded_does_not_compute_in_float():
    body = [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="folded")]
    after = [layers.MaxPooling2D(name="pool"), layers.BatchNormalization(name="alone")]
    student = keras.Sequential([keras.Input((6, 6, 2)), *body, *after])
    measured = summary(quantize_aware(student))
    assert measured["conv"].note == "folded with 'folded'"
    assert measured["folded"].note == "folded into 'conv'"
    assert measured["folded"].quantization.output_bits == 8
    assert measured["alone"].note.startswith("computes in float")


def test_plain_students_do_not_round():
    assert {layer.quantization for layer in summary(student()).layers} == {None}
