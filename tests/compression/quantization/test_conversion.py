"""Quantization-aware students as files: integers only, and the same outputs."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import tflite
from keras_kd.compression import quantize_aware, summary
from keras_kd.compression.bridge import graph, rebuilding


def randomized(student):
    """The student with normalizations that do something."""
    generator = np.random.default_rng(0)
    for layer in student._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return student


def residual():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(2.0, -1.0)(image)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def squeeze_and_excite():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(image)
    x = layers.Activation("swish")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.Activation("hard_silu")(layers.BatchNormalization()(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


def dense_blocks():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same")(image)
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
        x = layers.Concatenate()([x, y])
    x = layers.Conv2D(4, 1, activation="relu")(layers.BatchNormalization()(x))
    x = layers.AveragePooling2D(2)(x)
    return keras.Model(image, layers.Dense(4, activation="softmax")(layers.Flatten()(x)))


def siamese():
    tower = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(4)], name="tower"
    )
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    both = [tower(left), tower(right)]
    return keras.Model(
        {"left": left, "right": right},
        {"near": layers.Dense(1)(layers.Subtract()(both)), "sum": layers.Average()(both)},
    )


def sequence():
    series = keras.Input((12, 3), name="series")
    x = layers.Conv1D(8, 3, padding="causal", activation="relu", name="flat")(series)
    x = layers.SeparableConv1D(8, 3, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(series, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def transformer():
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(9, 8)(words)
    y = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    y = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization()(x + y)
    return keras.Model(words, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def recurrent():
    series = keras.Input((6, 3), name="series")
    x = layers.LSTM(6, name="lstm")(layers.Dense(4, activation="relu")(series))
    return keras.Model(series, layers.Dense(3)(x))


FLOAT = {
    transformer: {"embedding": "Embedding", "attention": "attention"},
    recurrent: {"lstm": "step by step"},
}


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    "make",
    [
        residual,
        pytest.param(squeeze_and_excite, marks=pytest.mark.slow),
        pytest.param(dense_blocks, marks=pytest.mark.slow),
        siamese,
        sequence,
        pytest.param(transformer, marks=pytest.mark.slow),
        pytest.param(recurrent, marks=pytest.mark.slow),
    ],
    ids=lambda make: make.__name__,
)
def test_no_float_operator_is_left(make):
    student = randomized(make())
    read = graph.read(student)
    values = rebuilding.random_inputs(read, examples=64)
    x = {spec.name: values[spec.slot] for spec in read.input_specs}
    aware = quantize_aware(student, x)
    in_float = {row.name: row.note for row in summary(aware).layers if row.quantization.is_float}
    expected_notes = FLOAT.get(make, {})
    for name, note in in_float.items():
        assert any(name.startswith(key) and why in note for key, why in expected_notes.items())
    assert len(in_float) == len(expected_notes)

    model = tflite.convert(aware, "int8", x)
    assert model.flatbuffer.float_operators() == []
    received = model.predict_by_name(x)
    structured = keras.tree.map_structure(lambda slot: values[slot], read.inputs)
    expected = aware(structured, training=False)
    expected = expected if isinstance(expected, dict) else dict.fromkeys(received, expected)
    for name, output in expected.items():
        # Steps of a 256th of the range: rounding differs by few.
        step = np.ptp(output.numpy()) / 255
        assert np.abs(received[name] - output.numpy()).mean() < 3 * step
        assert np.abs(received[name] - output.numpy()).max() < 16 * step
