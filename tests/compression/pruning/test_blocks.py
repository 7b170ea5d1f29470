"""Blocks that can be left out of a graph."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.pruning.blocks import (
    rebuilt,
    removable_blocks,
    removable_count,
    without_last_blocks,
)


def chain(*widths):
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(width, activation="relu") for width in widths]
    return keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(3)])


def residual(blocks):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same")(x)
    for number in range(blocks):
        y = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"first_{number}")(x)
        y = layers.Conv2D(4, 3, padding="same", name=f"second_{number}")(y)
        x = layers.ReLU(name=f"out_{number}")(layers.Add(name=f"add_{number}")([x, y]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def names(model):
    return [layer.name for layer in model.layers if layer.weights]


def test_a_repeated_layer_is_left_out():
    model = chain(6, 6, 6, 4)
    assert removable_count(graphs.read(model)) == 2
    smaller = rebuilt(without_last_blocks(graphs.read(model), 1))
    kept = [layer for layer in model.layers if layer.name in names(smaller)]
    x = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    expected = x
    for layer in kept:
        expected = layer(expected)
    np.testing.assert_allclose(smaller.predict(x, verbose=0), expected, atol=1e-6)
    assert len(kept) == 4


def test_layers_of_other_widths_stay():
    assert removable_blocks(graphs.read(chain(6, 4, 5))) == []


def test_the_last_residual_block_goes_first():
    model = residual(3)
    assert removable_count(graphs.read(model)) >= 2
    smaller = rebuilt(without_last_blocks(graphs.read(model), 1))
    assert "first_2" not in names(smaller)
    assert {"first_0", "first_1"} <= set(names(smaller))
    shallow = residual(2)
    shallow.set_weights(
        [w for layer in model.layers if not layer.name.endswith("_2") for w in layer.get_weights()]
    )
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype("float32")
    np.testing.assert_allclose(
        smaller.predict(x, verbose=0), shallow.predict(x, verbose=0), atol=1e-6
    )


def test_a_layer_called_twice_stays():
    shared = layers.Dense(5, activation="relu")
    model = keras.Sequential([keras.Input((5,)), layers.Dense(5, activation="relu")])
    inputs = keras.Input((5,))
    outputs = layers.Dense(3)(shared(shared(model(inputs))))
    graph = graphs.read(keras.Model(inputs, outputs))
    for block in removable_blocks(graph):
        assert all(call.layer is not shared for call in block.calls)


def test_several_inputs_have_no_blocks():
    first, second = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([first, second], layers.Dense(4)(layers.Add()([first, second])))
    assert removable_blocks(graphs.read(model)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_shapes_of_inputs_and_outputs_stay(count):
    model = residual(2)
    smaller = rebuilt(without_last_blocks(graphs.read(model), count))
    assert smaller.input_shape == model.input_shape
    assert smaller.output_shape == model.output_shape
