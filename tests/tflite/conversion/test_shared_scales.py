"""int8 where an operator with one scale reads what others read, too: nothing is cut off."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kd import tflite
from keras_kd.tflite.conversion import converter

from _models import cross_entropy

X = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
# Rounding costs a step of 255, or two: what sums add up.
MOST = 0.015


def student_of(make, size=3):
    """What is made of a convolution's output, and of the input of the student."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, size), name="image")
    return keras.Model(image, make(layers.Conv2D(4, 3, padding="same")(image), image))


def attention(x, image):
    pooled = [ops.max(x, -1, keepdims=True), ops.mean(x, -1, keepdims=True)]
    weights = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(ops.concatenate(pooled, -1))
    return x * weights


def halves(x, image):
    left, right = ops.split(x, 2, -1)
    return ops.concatenate([ops.minimum(left, 0.1) + 1.0, right], -1) + x


def through_averages(x, image):
    small = layers.AveragePooling2D(2)(x)
    large = layers.UpSampling2D(2, interpolation="bilinear")(small)
    return x + ops.minimum(large, 0.1)


def flat(x, image):
    return ops.reshape(x, (-1, 256)) + ops.minimum(ops.reshape(x, (-1, 256)), 0.2)


CASES = {
    "minimum": lambda x, image: x + ops.minimum(x, 0.2),
    "two of them": lambda x, image: ops.minimum(x, 0.2) + ops.maximum(x, -0.2),
    "one after the other": lambda x, image: x + ops.clip(x, -0.1, 0.1),
    "concatenation after a maximum": attention,
    "part of it": lambda x, image: x + ops.minimum(x[..., :2], 0.1)[..., :1],
    "halves": halves,
    "through averages": through_averages,
    "through a reshape": flat,
    "choice": lambda x, image: x + ops.where(x > 0, ops.minimum(x, 0.1), 0.05),
    "wider for others": lambda x, image: ops.sum(ops.stack([x, 10 * x], -1), -1) * 0.1 + x,
    "beside a fixed range": lambda x, image: (
        x + ops.sum(ops.concatenate([ops.sigmoid(x), ops.minimum(x, 0.1)], -1), -1, keepdims=True)
    ),
    "the input": lambda x, image: x + ops.max(ops.minimum(image, 0.2), -1, keepdims=True),
    "an output": lambda x, image: [x, ops.minimum(x, 0.2)],
}
SLOW = ("one after the other", "through a reshape", "two of them", "wider for others", "choice")


def shares(model, student):
    """The largest difference of each output, as a share of its range."""
    outputs = tflite.verify(model, student, X).outputs
    return [output.largest_difference / (output.high - output.low) for output in outputs]


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if c in SLOW else []) for c in CASES]
)
def test_nothing_is_cut_off(case):
    student = student_of(CASES[case])
    model = tflite.convert(student, "int8", X)
    assert max(shares(model, student)) < MOST
    assert model.flatbuffer.float_operators() == []


@pytest.mark.parametrize(
    "case", ["the input", pytest.param("halves", marks=pytest.mark.slow), "an output"]
)
def test_on_microcontrollers(case):
    student = student_of(CASES[case])
    model = tflite.convert(student, "int8", X, target="microcontroller")
    # `convert` compares it with TFLM, bit for bit.
    assert {tensor.dtype for tensor in (*model.inputs, *model.outputs)} == {np.dtype("int8")}
    assert max(shares(model, student)) < MOST


def test_what_costs_nothing_is_left_as_it_is(monkeypatch):
    seen = []
    keep = converter.keep_tensors_apart

    def spy(model, input_ranges):
        seen.append(keep(model, input_ranges))
        return seen[-1]

    monkeypatch.setattr(converter, "keep_tensors_apart", spy)

    def dense_block(x, image):
        new = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        together = ops.concatenate([x, new], -1)
        return layers.Conv2D(4, 3, padding="same")(together) + ops.max(x, -1, keepdims=True)

    model = tflite.convert(student_of(dense_block), "int8", X)
    assert seen == [False]
    # That of the input.
    assert model.operators["QUANTIZE"] == 1


@pytest.mark.slow
def test_attention_on_digits_keeps_its_accuracy(monkeypatch):
    """CBAM (Woo et al., 2018): weights of channels and of places from maxima and means."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = (data.images / 16)[..., None].astype("float32"), data.target
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(image)
    x = layers.Conv2D(12, 3, padding="same")(x)
    x = attention(x, image)
    hidden, gates = layers.Dense(6, activation="relu"), layers.Dense(12)
    mean, most = ops.mean(x, (1, 2)), ops.max(x, (1, 2))
    weights = ops.sigmoid(gates(hidden(mean)) + gates(hidden(most)))
    x = x * ops.reshape(weights, (-1, 1, 1, 12))
    pooled = ops.concatenate([ops.max(x, (1, 2)), ops.mean(x, (1, 2))], -1)
    student = keras.Model(image, layers.Dense(10)(pooled))
    loss = cross_entropy()
    student.compile("adam", loss)
    student.fit(images[:900], labels[:900], batch_size=32, epochs=8, verbose=0)
    test = {"verification_data": images[900:], "y": labels[900:]}
    evidence = tflite.convert(student, "int8", images[:500], **test).verification
    assert abs(evidence.accuracy - evidence.student_accuracy) < 0.015
    monkeypatch.setattr(converter, "keep_tensors_apart", lambda *_: False)
    with pytest.raises(ValueError, match=r"not those of the student"):
        tflite.convert(student, "int8", images[:500], **test)
