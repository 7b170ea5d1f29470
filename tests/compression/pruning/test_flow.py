"""Through which layers and operations the channels of a filter can be followed."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import remove_filters

from _filters import (
    check,
    conv,
    head,
    masked_outputs,
    operations_net,
    widths,
)
from _models import chain, randomized


def test_operations_between_layers_hand_channels_on():
    smaller = check(operations_net(), 0.5)
    assert widths(smaller) == {"stem": 4, "branch": 4, "gate": 4, "last": 3, "logits": 3}


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + np.arange(8, dtype="float32"),
        lambda x: x[..., ::2],
        lambda x: keras.ops.softmax(x),
        lambda x: keras.ops.max(x, -1, keepdims=True),
    ],
)
def test_what_an_operation_of_unknown_effect_reads_stays(operation):
    inputs = keras.Input((8, 8, 3))
    x = conv(8, "first")(conv(6, "early")(inputs))
    model = randomized(keras.Model(inputs, head(operation(x))))
    assert widths(remove_filters(model, 0.5)) == {"early": 3, "first": 8, "logits": 3}


def through(*stack, shape=(8, 8, 3), classes=3):
    """`stack` between a convolution and a Dense layer on everything."""
    return chain(
        conv(8, "first"),
        *stack,
        layers.Flatten(),
        layers.Dense(classes, name="logits"),
        shape=shape,
    )


@pytest.mark.fast_rows(7)
@pytest.mark.parametrize(
    "stack",
    [
        [layers.PReLU()],
        [layers.PReLU(shared_axes=[1, 2])],
        [layers.LeakyReLU(), layers.Dropout(0.3), layers.SpatialDropout2D(0.3)],
        [layers.Activation("gelu"), layers.AveragePooling2D(2), layers.UpSampling2D()],
        [layers.ZeroPadding2D(), layers.Cropping2D(2)],
        [layers.BatchNormalization(scale=False), layers.Rescaling(2.0, 0.5)],
        [layers.DepthwiseConv2D(3, depth_multiplier=2), layers.ReLU()],
        [layers.SeparableConv2D(6, 3, depth_multiplier=2, name="second"), layers.ReLU()],
        [layers.Conv2DTranspose(6, 3, strides=2, name="second", activation="relu")],
        [layers.GlobalMaxPooling2D(), layers.RepeatVector(3), layers.Conv1D(4, 2, name="second")],
        [layers.GlobalMaxPooling2D(), layers.Reshape((1, 1, 8)), conv(4, "second")],
        [layers.Reshape((64, -1)), layers.Conv1D(4, 3, name="second"), layers.MaxPooling1D()],
        [layers.Reshape((4, 16, 8)), conv(4, "second")],
        [layers.Dense(6, name="second", activation="tanh"), layers.GlobalAveragePooling2D()],
    ],
    ids=lambda stack: "-".join(type(layer).__name__ for layer in stack),
)
def test_layers_hand_channels_on(stack):
    # A layer belongs to the model that it was last built in.
    stack = [layer.from_config(layer.get_config()) for layer in stack]
    smaller = check(through(*stack))
    assert widths(smaller)["first"] == 4
    if "second" in widths(smaller):
        assert widths(smaller)["second"] == widths(through(*stack))["second"] // 2


def test_sequences_and_volumes():
    sequence = chain(
        layers.Conv1D(8, 3, padding="causal", activation="relu", name="first"),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2, name="logits"),
        shape=(12, 4),
    )
    volume = chain(
        layers.Conv3D(8, 2, activation="relu", name="first"),
        layers.GlobalAveragePooling3D(),
        layers.Dense(2, name="logits"),
        shape=(4, 4, 4, 2),
    )
    for model in (sequence, volume):
        assert widths(check(model)) == {"first": 4, "logits": 2}


def test_units_that_become_a_map_leave_one_channel_together():
    smaller = check(
        chain(
            layers.Dense(4 * 4 * 6, activation="relu", name="units"),
            layers.Reshape((4, 4, 6)),
            layers.Conv2DTranspose(4, 3, strides=2, name="up"),
            layers.ReLU(),
            conv(1, "image"),
            shape=(5,),
        )
    )
    assert widths(smaller) == {"units": 4 * 4 * 3, "up": 2, "image": 1}


def test_a_map_of_unknown_size():
    inputs = keras.Input((None, None, 3))
    x = layers.MaxPooling2D()(conv(8, "first", activation="relu")(inputs))
    model = randomized(keras.Model(inputs, head(conv(4, "second")(x))))
    smaller = remove_filters(model, 0.5)
    assert widths(smaller) == {"first": 4, "second": 2, "logits": 3}
    assert smaller.input_shape == (None, None, None, 3)
    x = np.random.default_rng(0).normal(size=(3, 6, 7, 3)).astype("float32")
    np.testing.assert_allclose(smaller(x), masked_outputs(model, smaller, x)[0], atol=1e-5)


class Twice(layers.Layer):
    """Of which nobody else knows what it does."""

    def call(self, x):
        return 2 * x


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize(
    "barrier",
    [
        lambda: layers.LayerNormalization(),
        lambda: layers.GroupNormalization(2),
        lambda: layers.UnitNormalization(),
        lambda: layers.Softmax(),
        lambda: layers.Permute((3, 1, 2)),
        lambda: layers.Activation("softmax"),
        lambda: layers.BatchNormalization(axis=1),
        lambda: layers.Rescaling([1.0, 2.0, 3.0, 4.0] * 2),
        lambda: layers.Conv2D(8, 3, groups=2),
        lambda: layers.TimeDistributed(layers.Conv1D(4, 3)),
        lambda: Twice(),
    ],
)
def test_what_a_layer_of_unknown_effect_reads_stays(barrier):
    model = randomized(
        chain(
            conv(8, "early", activation="relu"),
            conv(8, "first"),
            barrier(),
            layers.Flatten(),
            layers.Dense(6, name="late"),
            layers.Dense(2, name="logits"),
        )
    )
    smaller = remove_filters(model, 0.5)
    assert widths(smaller)["early"] == 4
    assert widths(smaller)["first"] == 8
    assert widths(smaller)["late"] == 3
