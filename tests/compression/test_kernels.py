import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

from keras_kd import compression
from keras_kd.compression import ConstantSchedule, to_tf_keras
from keras_kd.compression.kernels import CLUSTERABLE, Axes, is_depthwise, kernels
from keras_kd.compression.layers import LAYERS as ROWS

from _models import Block

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


class Listing(Block):
    """A custom layer made of others that lists what can be compressed."""

    def get_prunable_weights(self):
        return [self.narrow.kernel]

    def get_clusterable_weights(self):
        return []


class Dense(keras.layers.Layer):
    """A layer that only shares its name with the one of Keras."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, inputs):
        return keras.ops.exp(inputs @ self.kernel)


def model_of(layer, shape):
    inputs = keras.Input(shape, dtype="int32" if layer.name == "embedding" else None)
    attention = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
    is_attention = isinstance(layer, attention)
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
    "cells of two kinds": (
        keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.GRUCell(2)]),
        SEQUENCE,
        {
            f"cell/cells_{number}/{name}": MATRIX
            for number in (0, 1)
            for name in ("kernel", "recurrent_kernel")
        },
    ),
    "grouped attention": (
        keras.layers.GroupQueryAttention(4, 4, 2),
        SEQUENCE,
        {
            **{
                f"{name}_dense/kernel": Axes((), (0,), (1, 2)) for name in ("query", "key", "value")
            },
            "output_dense/kernel": Axes((), (0, 1), (2,)),
        },
    ),
    # The depthwise kernel beside others is left alone.
    "made of others": (Block(), SEQUENCE, {"kernel": MATRIX, "kernel_2": MATRIX}),
    "namesake": (Dense(), SEQUENCE, {}),
    "depthwise": (
        keras.layers.DepthwiseConv2D(3),
        IMAGE,
        {"kernel": Axes((0, 1), (2, 3), ())},
    ),
    "custom": (Twice(), SEQUENCE, {"first": MATRIX, "second": None}),
    "activation": (keras.layers.ReLU(), SEQUENCE, {}),
    "normalization": (keras.layers.LayerNormalization(), SEQUENCE, {}),
}


@pytest.mark.fast_rows(8)
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


def test_a_part_that_is_frozen_is_left_out():
    layer = Block()
    model_of(layer, SEQUENCE)
    layer.wide.trainable = False
    assert [kernel.weight for kernel in kernels(layer)] == [layer.narrow.kernel]
    # A layer that is frozen as a whole still has kernels to measure.
    layer.trainable = False
    assert len(kernels(layer)) == 2


def test_a_class_that_lists_its_weights_speaks_for_what_is_inside():
    layer = Listing()
    model_of(layer, SEQUENCE)
    assert [kernel.weight for kernel in kernels(layer)] == [layer.narrow.kernel]
    assert kernels(layer, CLUSTERABLE) == []


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("compress", "measure", "expected"),
    [
        (
            lambda student: compression.prune(student, 0.5, schedule=ConstantSchedule()),
            lambda row: row.zeros / row.weights,
            0.5,
        ),
        (lambda student: compression.cluster(student, 4), lambda row: row.values, 4),
    ],
    ids=["prune", "cluster"],
)
def test_what_is_inside_other_layers_trains_compressed(compress, measure, expected, tmp_path):
    inputs = keras.Input(SEQUENCE)
    x = keras.layers.GroupQueryAttention(4, 4, 2, name="attention")(inputs, inputs)
    student = compress(keras.Model(inputs, Block(name="block")(x)))
    x = np.random.default_rng(0).normal(size=(8, *SEQUENCE)).astype("float32")
    before = [np.array(weight) for weight in student.trainable_weights]
    student.compile(tf_keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    callbacks = student.training_callbacks() if hasattr(student, "training_callbacks") else []
    student.fit(x, x, batch_size=2, callbacks=callbacks, verbose=0)
    assert not any(map(np.array_equal, before, student.trainable_weights))

    student.save(tmp_path / "student.keras")
    loaded = compression.load(tmp_path / "student.keras", custom_objects={"Block": Block})
    for model in (student, loaded, compression.strip(student)):
        np.testing.assert_allclose(model(x), student(x), atol=1e-6)
        rows = compression.summary(model).kernels
        assert [row.layer for row in rows] == ["attention"] * 4 + ["block"] * 2
        assert set(map(measure, rows)) == {expected}


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
        # The two locally connected layers are no longer in Keras 3.
        if not names or layer_class.__name__.startswith("LocallyConnected"):
            continue
        row = ROWS[layer_class.__name__]
        if row.is_recurrent:
            row = ROWS[f"{row.name}Cell"]
        if row.name == "MultiHeadAttention":
            row = ROWS["EinsumDense"]
        known = {kernel.name for kernel in row.kernels if kernel.writes}
        assert {name.split(".")[-1] for name in names} == known, layer_class
