"""The five networks of MLPerf Tiny, untrained, beside the int8 files that are published of them.

Weights change neither the bytes nor the arena. The published numbers are those of mlcommons/tiny
1afd2c982 (benchmark/training), the arenas measured as here.
"""

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import microcontroller

L = keras.layers
# Bytes of the published file, and its arena.
PUBLISHED = {
    "autoencoder": (276_976, 4_640),
    "resnet-8": (98_496, 55_984),
    "ds-cnn": (53_936, 24_272),
    "mobilenet": (333_288, 103_680),
    "wake word": (74_520, 16_640),
}


def _normalized(layer, x):
    return L.BatchNormalization()(layer(x))


def _relu(layer, x):
    return L.ReLU()(_normalized(layer, x))


def _autoencoder():
    x = inputs = keras.Input((640,))
    for units in (*[128] * 4, 8, *[128] * 4):
        x = _relu(L.Dense(units), x)
    return inputs, L.Dense(640)(x)


def _resnet():
    inputs = keras.Input((32, 32, 3))
    x = _relu(L.Conv2D(16, 3, padding="same"), inputs)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = _relu(L.Conv2D(filters, 3, strides, "same"), x)
        y = _normalized(L.Conv2D(filters, 3, padding="same"), y)
        x = x if strides == 1 else L.Conv2D(filters, 1, strides, "same")(x)
        x = L.ReLU()(L.Add()([x, y]))
    return inputs, L.Dense(10, "softmax")(L.Flatten()(L.AveragePooling2D(8)(x)))


def _ds_cnn():
    inputs = keras.Input((49, 10, 1))
    x = _relu(L.Conv2D(64, (10, 4), (2, 2), "same"), inputs)
    for _ in range(4):
        x = _relu(L.DepthwiseConv2D(3, padding="same"), x)
        x = _relu(L.Conv2D(64, 1, padding="same"), x)
    return inputs, L.Dense(12, "softmax")(L.Flatten()(L.AveragePooling2D((25, 5))(x)))


def _mobilenet():
    inputs = keras.Input((96, 96, 3))
    x = _relu(L.Conv2D(8, 3, 2, "same"), inputs)
    strided = {32: 2, 64: 2, 128: 2, 256: 2}
    filters_of_blocks = [16, 32, 32, 64, 64, *[128] * 6, 256, 256]
    for number, filters in enumerate(filters_of_blocks):
        is_first = filters not in filters_of_blocks[:number]
        x = _relu(L.DepthwiseConv2D(3, strided.get(filters, 1) if is_first else 1, "same"), x)
        x = _relu(L.Conv2D(filters, 1), x)
    return inputs, L.Dense(2, "softmax")(L.Flatten()(L.AveragePooling2D(3)(x)))


def _wake_word():
    x = inputs = keras.Input((30, 1, 40))
    for length, filters in ((3, 128), (5, 128), (10, 128), (15, 32)):
        x = L.DepthwiseConv2D((length, 1), use_bias=False)(x)
        x = _relu(L.Conv2D(filters, 1, use_bias=False), x)
    return inputs, L.Dense(3, "softmax")(L.Flatten()(x))


NETWORKS = dict(
    zip(PUBLISHED, (_autoencoder, _resnet, _ds_cnn, _mobilenet, _wake_word), strict=True)
)


@pytest.mark.slow
@pytest.mark.skipif(not microcontroller.is_installed(), reason="tflite-micro is not installed")
@pytest.mark.parametrize("name", PUBLISHED)
def test_no_larger_than_the_published_file(name):
    keras.utils.set_random_seed(0)
    student = keras.Model(*NETWORKS[name]())
    data = np.random.default_rng(0).random((32, *student.input_shape[1:]), np.float32)
    for layer in student.layers:
        # Otherwise the values vanish from layer to layer, and TFLM aborts in a softmax of nothing.
        if isinstance(layer, L.DepthwiseConv2D):
            layer.kernel.assign(layer.kernel.shape[2] ** 0.5 * layer.kernel)
    model = tflite.convert(student, "int8", data, "microcontroller")
    size, arena = PUBLISHED[name]
    assert 0.7 * size < model.size <= size
    measured = microcontroller.run(model, data[:1]).arena_bytes
    assert 0 < measured <= arena
