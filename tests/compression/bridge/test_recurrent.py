"""Recurrent layers, with masks and states, become tf_keras' own."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd.compression import strip, to_tf_keras
from keras_kd.compression.bridge.opaque import OpaqueLayer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 5, 4)).astype("float32")
# The last steps of the first example and the first of the second are padding.
X[0, 3:] = X[1, :2] = 0


def masked(*stack):
    return keras.Sequential([keras.Input((5, 4)), layers.Masking(), *stack])


STACKS = {
    "LSTM": lambda: [layers.LSTM(3)],
    "options of LSTM": lambda: [
        layers.LSTM(3, return_sequences=True, go_backwards=True, zero_output_for_mask=True)
    ],
    "other activations": lambda: [
        layers.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False)
    ],
    "GRU": lambda: [layers.GRU(3, return_sequences=True), layers.GRU(2, reset_after=False)],
    "unrolled": lambda: [layers.SimpleRNN(3, unroll=True), layers.Dense(2)],
    "cells": lambda: [layers.RNN([layers.LSTMCell(3), layers.GRUCell(2), layers.SimpleRNNCell(2)])],
    "one cell": lambda: [layers.RNN(layers.GRUCell(3), return_sequences=True)],
    "both directions": lambda: [
        layers.Bidirectional(layers.LSTM(3, return_sequences=True, zero_output_for_mask=True))
    ],
    "other way back": lambda: [
        layers.Bidirectional(
            layers.LSTM(3), backward_layer=layers.GRU(3, go_backwards=True), merge_mode="mul"
        )
    ],
    "at each step": lambda: [
        layers.TimeDistributed(layers.Dense(3, activation="tanh")),
        layers.GlobalAveragePooling1D(),
    ],
}


FAST = ("options of LSTM", "cells", "at each step")


def with_random_weights(model):
    for weight in model.weights:
        weight.assign(RANDOM.normal(0, 0.7, weight.shape))
    return model


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    "stack",
    [
        pytest.param(stack, id=name, marks=[] if name in FAST else pytest.mark.slow)
        for name, stack in STACKS.items()
    ],
)
def test_recurrent_layers_obey_masks_and_come_back(stack):
    model = with_random_weights(masked(*stack()))
    rebuilt = to_tf_keras(model)
    assert not any(isinstance(layer, OpaqueLayer) for layer in rebuilt.layers)
    np.testing.assert_allclose(rebuilt(X), model(X), rtol=1e-5, atol=1e-5)
    back = strip(rebuilt)
    for one, other in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(back(X), model(X), rtol=1e-6, atol=1e-6)
    # TF-MOT works on copies made from configs.
    copy = tf_keras.models.clone_model(rebuilt)
    copy.set_weights(rebuilt.get_weights())
    np.testing.assert_array_equal(copy(X), rebuilt(X))


def test_states_go_from_layer_to_layer():
    inputs = keras.Input((5, 4))
    sequence, hidden, cell = layers.LSTM(3, return_sequences=True, return_state=True)(inputs)
    decoded = layers.LSTM(3)(sequence, initial_state=[hidden, cell])
    last, state = layers.GRU(3, return_state=True)(sequence, initial_state=hidden)
    model = with_random_weights(keras.Model(inputs, [decoded, last, state]))
    for twin in (rebuilt := to_tf_keras(model), strip(rebuilt)):
        for one, other in zip(twin(X), model(X), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_stateful_layer_keeps_its_state_while_it_is_compared():
    model = keras.Sequential([keras.Input((5, 4), batch_size=3), layers.GRU(2, stateful=True)])
    model(X)
    before = np.asarray(model.layers[0].states[0])
    rebuilt = to_tf_keras(model)
    np.testing.assert_array_equal(model.layers[0].states[0], before)
    model.layers[0].reset_state()
    for _ in range(2):
        np.testing.assert_allclose(rebuilt(X), model(X), rtol=1e-5, atol=1e-6)


def test_the_same_training_step():
    model = with_random_weights(masked(layers.LSTM(3), layers.Dense(2)))
    rebuilt = to_tf_keras(model)
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    rebuilt.compile(tf_keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    y = np.ones((3, 2), "float32")
    assert rebuilt.train_on_batch(X, y) == pytest.approx(model.train_on_batch(X, y), rel=1e-5)
    for one, other in zip(model.get_weights(), rebuilt.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_layer_with_a_custom_cell_is_kept_as_it_is():
    class Cell(layers.SimpleRNNCell):
        def call(self, sequence, states, training=False):
            output, states = super().call(sequence, states, training=training)
            return 2 * output, states

    model = masked(layers.RNN(Cell(3)))
    rebuilt = to_tf_keras(model)
    assert isinstance(rebuilt.layers[-1], OpaqueLayer)
    np.testing.assert_allclose(rebuilt(X), model(X), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(strip(rebuilt)(X), model(X))
