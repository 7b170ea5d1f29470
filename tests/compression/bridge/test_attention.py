"""Attention: tf_keras' own layers where they compute alike, the Keras 3 layer where not."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd.compression import strip, to_tf_keras
from keras_kd.compression.bridge.opaque import OpaqueLayer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 5, 4)).astype("float32")


def check(model, inputs, twin):
    """The same outputs in the twin and in what is stripped of it, the same weights there."""
    back = strip(twin)
    for other in (twin, back):
        for expected, received in zip(
            keras.tree.flatten(model(inputs)), keras.tree.flatten(other(inputs)), strict=True
        ):
            np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(model.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def model_of(function, *inputs):
    model = keras.Model(list(inputs) if len(inputs) > 1 else inputs[0], function(*inputs))
    for weight in model.trainable_weights:
        weight.assign(RANDOM.normal(0, 0.7, weight.shape))
    return model


NATIVE = {
    "self attention": lambda x: layers.MultiHeadAttention(2, 3, value_dim=5)(x, x),
    "causal": lambda x: layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True),
    "scores": lambda x: layers.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True),
    "by name": lambda x: layers.MultiHeadAttention(1, 2, use_bias=False)(query=x, value=x),
    "dot product": lambda x: layers.Attention(use_scale=True, score_mode="concat")([x, x]),
    "additive": lambda x: layers.AdditiveAttention()([x, x], use_causal_mask=True),
}


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize("function", NATIVE.values(), ids=NATIVE.keys())
def test_attention_becomes_that_of_tf_keras(function):
    model = model_of(function, keras.Input((5, 4)))
    rebuilt = to_tf_keras(model)
    assert not any(isinstance(layer, OpaqueLayer) for layer in rebuilt.layers)
    check(model, X, rebuilt)
    copy = tf_keras.models.clone_model(rebuilt)
    copy.set_weights(rebuilt.get_weights())
    check(model, X, copy)


def test_an_attention_mask_is_an_input_like_any_other():
    model = model_of(
        lambda x, mask: layers.MultiHeadAttention(2, 3)(x, x, attention_mask=mask),
        keras.Input((5, 4)),
        keras.Input((5, 5), dtype="bool"),
    )
    mask = np.tril(np.ones((2, 5, 5), bool))
    check(model, [X, mask], to_tf_keras(model))


def test_where_all_is_masked_scores_get_no_gradient(assert_same_step):
    model = model_of(
        lambda x, mask: layers.MultiHeadAttention(2, 3)(x, x, attention_mask=mask),
        keras.Input((5, 4)),
        keras.Input((5, 5), dtype="bool"),
    )
    mask = np.tril(np.ones((2, 5, 5), bool), -1)
    assert not mask[:, 0].any()
    assert_same_step(model, [X, mask])


KEPT = {
    "only Keras 3 has it": lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x),
    "an argument that only Keras 3 has": lambda x: layers.MultiHeadAttention(2, 3)(
        x, x, key_mask=x[..., 0] > 0
    ),
}


@pytest.mark.parametrize("function", KEPT.values(), ids=KEPT.keys())
def test_attention_that_tf_keras_lacks_is_kept(function):
    model = model_of(function, keras.Input((5, 4)))
    rebuilt = to_tf_keras(model)
    assert any(isinstance(layer, OpaqueLayer) for layer in rebuilt.layers)
    check(model, X, rebuilt)


def test_a_transformer_on_padded_words():
    def transformer(words):
        x = layers.Embedding(7, 4, mask_zero=True)(words)
        attended = layers.MultiHeadAttention(2, 2)(x, x)
        x = layers.LayerNormalization()(layers.Add()([x, attended]))
        # With `x + y` the mask would end here, and padding would be trained on.
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(4, activation="gelu")(x)]))
        return layers.Dense(2)(layers.GlobalAveragePooling1D()(x))

    model = model_of(transformer, keras.Input((5,), dtype="int32"))
    words = np.array([[3, 4, 5, 0, 0], [1, 0, 0, 0, 0]])
    rebuilt = to_tf_keras(model)
    check(model, words, rebuilt)
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    rebuilt.compile(tf_keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    y = np.ones((2, 2), "float32")
    assert rebuilt.train_on_batch(words, y) == pytest.approx(
        model.train_on_batch(words, y), rel=1e-5
    )
    for one, other in zip(model.get_weights(), strip(rebuilt).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
