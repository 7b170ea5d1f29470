import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from keras_kd.compression import to_tf_keras
from keras_kd.compression.pruning.kernels import FAMILIES, is_depthwise, kernels
from keras_kd.compression.pruning.patterns import Axes

IMAGE, SEQUENCE = (6, 6, 3), (5, 3)
MATRIX = Axes((), (0,), (1,))
CONVOLUTION = Axes((0, 1), (2,), (3,))


class Twice(keras.layers.Layer):
    """A custom layer that says what can be pruned."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1], 4), name="first")
        self.second = self.add_weight(shape=(4, 2, 1), name="second")
        self.offset = self.add_weight(shape=(4,), name="offset")

    def call(self, inputs):
        return inputs @ self.first + self.offset

    def get_prunable_weights(self):
        return [self.first, self.second]


def model_of(layer, shape):
    inputs = keras.Input(shape, dtype="int32" if layer.name == "embedding" else None)
    is_attention = isinstance(layer, keras.layers.MultiHeadAttention)
    return keras.Model(inputs, layer(inputs, inputs) if is_attention else layer(inputs))


LAYERS = {
    "dense": (keras.layers.Dense(4), SEQUENCE, {"kernel": MATRIX}),
    "convolution": (keras.layers.Conv2D(4, 3), IMAGE, {"kernel": CONVOLUTION}),
    "sequence": (keras.layers.Conv1D(4, 3), SEQUENCE, {"kernel": Axes((0,), (1,), (2,))}),
    "transposed": (
        keras.layers.Conv2DTranspose(4, 3),
        IMAGE,
        {"kernel": Axes((0, 1), (3,), (2,))},
    ),
    "separable": (keras.layers.SeparableConv2D(4, 3), IMAGE, {"pointwise_kernel": CONVOLUTION}),
    "embedding": (
        keras.layers.Embedding(7, 4, name="embedding"),
        (5,),
        {"embeddings": Axes((), (1,), (0,))},
    ),
    "einsum": (
        keras.layers.EinsumDense("abc,bcd->abd", output_shape=(5, 4)),
        SEQUENCE,
        # One matrix at each place of the sequence.
        {"kernel": Axes((0,), (1,), (2,))},
    ),
    "lstm": (keras.layers.LSTM(4), SEQUENCE, {"kernel": MATRIX, "recurrent_kernel": MATRIX}),
    "gru": (keras.layers.GRU(4), SEQUENCE, {"kernel": MATRIX, "recurrent_kernel": MATRIX}),
    "cells": (
        keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.LSTMCell(2)]),
        SEQUENCE,
        {
            "cell/cells_0/kernel": MATRIX,
            "cell/cells_0/recurrent_kernel": MATRIX,
            "cell/cells_1/kernel": MATRIX,
            "cell/cells_1/recurrent_kernel": MATRIX,
        },
    ),
    "bidirectional": (
        keras.layers.Bidirectional(keras.layers.SimpleRNN(4)),
        SEQUENCE,
        {
            f"{way}_layer/{name}": MATRIX
            for way in ("forward", "backward")
            for name in ("kernel", "recurrent_kernel")
        },
    ),
    "in time": (keras.layers.TimeDistributed(keras.layers.Dense(4)), SEQUENCE, {"kernel": MATRIX}),
    "attention": (
        keras.layers.MultiHeadAttention(2, 4),
        SEQUENCE,
        {
            **{
                f"{name}_dense/kernel": Axes((), (0,), (1, 2)) for name in ("query", "key", "value")
            },
            "output_dense/kernel": Axes((), (0, 1), (2,)),
        },
    ),
    "depthwise": (
        keras.layers.DepthwiseConv2D(3),
        IMAGE,
        {"kernel": Axes((0, 1), (2, 3), ())},
    ),
    "custom": (Twice(), SEQUENCE, {"first": MATRIX, "second": None}),
    "activation": (keras.layers.ReLU(), SEQUENCE, {}),
    "normalization": (keras.layers.LayerNormalization(), SEQUENCE, {}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_and_their_axes_in_both_kerases(name):
    layer, shape, expected = LAYERS[name]
    model = model_of(layer, shape)
    twin = to_tf_keras(model).layers[-1]
    renamed = {
        "depthwise_kernel" if name == "depthwise" else key: axes for key, axes in expected.items()
    }
    assert {kernel.name: kernel.axes for kernel in kernels(layer)} == expected
    assert {kernel.name: kernel.axes for kernel in kernels(twin)} == renamed
    assert all(isinstance(kernel.variable, tf.Variable) for kernel in kernels(twin))
    assert is_depthwise(twin) == is_depthwise(layer) == (name == "depthwise")


def test_matrices_of_a_contraction_multiply_as_the_layer_does():
    layer = keras.layers.EinsumDense("abc,cbde->adbe", output_shape=(2, 5, 3))
    inputs = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    outputs = np.asarray(layer(inputs))
    [kernel] = kernels(layer)
    matrices = np.asarray(kernel.axes.as_matrices(kernel.variable))
    assert kernel.axes == Axes((1,), (0,), (2, 3))
    products = np.einsum("abc,bcx->bax", inputs, matrices).reshape(5, 4, 2, 3)
    np.testing.assert_allclose(outputs, products.transpose(1, 2, 0, 3), atol=1e-5)


def test_layers_that_tf_mot_prunes_are_pruned_with_the_same_weights():
    for layer_class, names in PruneRegistry._LAYERS_WEIGHTS_MAP.items():
        known = FAMILIES.get(layer_class.__name__)
        # The two locally connected layers are no longer in Keras 3.
        if not names or layer_class.__name__.startswith("LocallyConnected"):
            continue
        assert {name.split(".")[-1] for name in names} == known.names, layer_class
    for cell in (tf_keras.layers.GRUCell, tf_keras.layers.LSTMCell, tf_keras.layers.SimpleRNNCell):
        assert FAMILIES[cell.__name__].names == {"kernel", "recurrent_kernel"}
