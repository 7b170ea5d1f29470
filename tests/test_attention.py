"""Attention layers, and the scores that they compute."""

import keras
import numpy as np
import pytest

from keras_kd import _attention, _keras


@pytest.fixture(scope="module")
def tf_keras():
    return _keras.tf_keras()


def test_attention_is_found_where_both_kerases_compute_it():
    layers = keras.layers
    tf_layers = _keras.tf_keras().layers
    found = [
        layers.MultiHeadAttention(2, 3),
        layers.GroupQueryAttention(3, 2, 1),
        tf_layers.MultiHeadAttention(2, 3),
    ]
    for layer in found:
        assert _attention.attention_in(layer) is layer
    assert _attention.attention_in(layers.Dense(2)) is None
    assert _attention.attention_in(layers.AdditiveAttention()) is None


def test_attention_over_several_axes_is_refused():
    layer = keras.layers.MultiHeadAttention(2, 3, attention_axes=(1, 2), name="axial")
    query = np.zeros((1, 4, 4, 2, 3), "float32")
    with pytest.raises(ValueError, match=r"'axial' with queries of shape.*one axis of positions"):
        _attention.attention_of_call(layer, (query, query, query), {})
