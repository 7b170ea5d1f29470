"""Quantization-aware students: what stands behind a normalization in the file."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import tflite
from keras_kd.compression import quantize_aware, summary

# Random statistics are nobody's training.
pytestmark = pytest.mark.filterwarnings("ignore:Received representative_data:UserWarning")


def with_statistics(student):
    """The student with normalizations that turn some channels round and leave one out."""
    generator = np.random.default_rng(0)
    for layer in student.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape[0]
            factors = generator.uniform(0.3, 3, size)
            factors[1], factors[2] = -factors[1], 0
            layer.set_weights(
                [factors, *(generator.normal(size=size) for _ in range(2)),
                 generator.uniform(0.5, 2, size)]
            )  # fmt: skip
    return student


def transposed(*behind):
    keras.utils.set_random_seed(0)
    body = [layers.Conv2DTranspose(4, 3, strides=2, padding="same"), layers.BatchNormalization()]
    return with_statistics(
        keras.Sequential([keras.Input((4, 4, 3)), *body, *behind, layers.Conv2D(2, 3)])
    )


@pytest.mark.parametrize(
    "behind", [[], pytest.param([layers.ReLU()], marks=pytest.mark.slow)], ids=["linear", "relu"]
)
def test_a_normalization_is_folded_into_a_transposed_convolution(behind):
    x = np.random.default_rng(1).normal(size=(32, 4, 4, 3)).astype("float32")
    aware = quantize_aware(transposed(*behind), x)
    model = tflite.convert(aware, "int8", x, "microcontroller")
    assert model.operators == {"CONV_2D": 1, "TRANSPOSE_CONV": 1}
    assert model.flatbuffer.most_scales("TRANSPOSE_CONV") == 4
    # The very numbers of the training; a step where a sum lies half-way between two.
    [output] = model.verification.outputs
    assert output.largest_difference <= 1.01 * output.step
    assert output.mean_difference < 0.02 * output.step
    rows = summary(aware).layers
    assert [row.quantization.per_channel for row in rows if row.kind == "Conv2DTranspose"] == [True]
    [note] = [row.note for row in rows if row.kind == "BatchNormalization"]
    assert note.startswith("folded into 'conv2d_transpose" if not behind else "rounded after")


def autoencoder():
    keras.utils.set_random_seed(0)
    body = []
    for units in (24, 8, 24):
        body += [layers.Dense(units), layers.BatchNormalization(), layers.ReLU()]
    student = keras.Sequential([keras.Input((32,)), *body, layers.Dense(32)])
    return with_statistics(student)


@pytest.mark.parametrize(
    "target", ["microcontroller", pytest.param("android", marks=pytest.mark.slow)]
)
def test_dense_layers_with_normalizations_are_integers_with_one_scale(target):
    x = np.random.default_rng(1).normal(size=(64, 32)).astype("float32")
    # The training has seen a wider range of inputs than the calibration of the converter.
    aware = quantize_aware(autoencoder(), 1.5 * x)
    model = tflite.convert(aware, "int8", x, target)
    ends = {} if target == "microcontroller" else {"DEQUANTIZE": 1, "QUANTIZE": 1}
    assert model.operators == {"FULLY_CONNECTED": 4, **ends}
    assert model.flatbuffer.float_tensors() == []
    assert model.flatbuffer.most_scales() == 1
    low, high = summary(aware).layers[0].quantization.output_range
    [limits] = model.flatbuffer.input_ranges()
    # Of its 255 steps one lies on zero.
    assert limits == pytest.approx((low, high), abs=(high - low) / 255)
    rows = [row for row in summary(aware).layers if row.kind == "Dense"]
    assert {row.quantization.per_channel for row in rows} == {False}
    [output] = model.verification.outputs
    assert output.square_difference < 0.1 * output.deviation


def test_a_way_through_real_numbers_is_refused(monkeypatch):
    from keras_kd.tflite.conversion import converter

    x = np.random.default_rng(1).normal(size=(64, 32)).astype("float32")
    aware = quantize_aware(autoencoder(), 1.5 * x)
    monkeypatch.setattr(converter, "keep_tensors_apart", lambda *_: False)
    with pytest.raises(ValueError, match="turns integers into real numbers and back in 1 place"):
        tflite.convert(aware, "int8", x, "microcontroller")
