"""Removed filters are compared with a student in which every reader is given 0 in their place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_kd.compression import prune, quantize_aware, remove_filters, to_tf_keras

MIXING = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv2DTranspose,
    layers.SeparableConv2D,
)
# What cannot be understood channel by channel reads all of them.
OPAQUE = (
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.LSTM,
    layers.MultiHeadAttention,
    layers.Softmax,
    layers.Permute,
)
SHAPING = (
    layers.Flatten,
    layers.Reshape,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling2D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.UpSampling2D,
    layers.Cropping2D,
)


def randomized(model, seed=0):
    """Every weight random, so that no bias equals another and no channel is like another."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        low, high = (0.5, 1.5) if "variance" in variable.name else (-0.5, 0.5)
        variable.assign(generator.uniform(low, high, variable.shape))
    return model


def sample(model, seed=1):
    generator = np.random.default_rng(seed)
    return [
        generator.normal(size=(3, *tensor.shape[1:])).astype("float32") for tensor in model.inputs
    ]


def masked_outputs(model, smaller, inputs):
    """The outputs of `model` where its mixing layers read 0 for the channels `smaller` has lost.

    Data and flags (1 where a channel has been removed) run through the model together, as the two
    halves of a batch; a filter is known to have been removed because its bias is gone.
    """

    def run(layer):
        def masked(*args, **kwargs):
            pairs = [tf.split(tensor, 2) for tensor in keras.tree.flatten(args)]
            if isinstance(layer, (*MIXING, *OPAQUE)):
                if isinstance(layer, OPAQUE):
                    assert not any(flags.numpy().any() for _, flags in pairs)
                pairs = [(data * (1 - flags), flags) for data, flags in pairs]
            operands = [data for data, _ in pairs]
            data = layer(operands if isinstance(args[0], list) else operands[0], **kwargs)
            flags = flags_after(layer, [flags for _, flags in pairs], data)
            return tf.concat([data, tf.cast(flags, data.dtype)], 0)

        return masked

    def flags_after(layer, flags, data):
        if isinstance(layer, MIXING):
            gone = ~np.isin(layer.bias, smaller.get_layer(layer.name).bias)
            return np.broadcast_to(gone.astype("float32"), data.shape)
        if isinstance(layer, SHAPING):
            return layer(flags[0])
        if isinstance(layer, layers.DepthwiseConv2D):
            flag = np.repeat(np.asarray(flags[0])[:, :1, :1], layer.depth_multiplier, -1)
            return np.broadcast_to(flag, data.shape)
        if isinstance(layer, layers.Concatenate):
            return layer(flags)
        if isinstance(layer, layers.ZeroPadding2D):
            return np.broadcast_to(np.asarray(flags[0])[:, :1, :1], data.shape)
        if isinstance(layer, layers.RepeatVector):
            return layer(flags[0])
        if isinstance(layer, OPAQUE):
            return np.zeros(data.shape)
        # A channel that is merged must have gone from all sides.
        flags = [np.broadcast_to(flag, data.shape) for flag in flags]
        for flag in flags[1:]:
            np.testing.assert_array_equal(flag, flags[0])
        return flags[0]

    both = [tf.concat([value, np.zeros_like(value)], 0) for value in inputs]
    function = getattr(model, "_functional", None) or model
    outputs = function._run_through_graph(both, operation_fn=run)
    halves = [tf.split(output, 2) for output in keras.tree.flatten(outputs)]
    assert not any(flags.numpy().any() for _, flags in halves)
    return [data.numpy() for data, _ in halves]


def check(model, share=0.5, **options):
    """Remove filters of a randomized model and compare; gives the smaller model."""
    randomized(model)
    inputs = sample(model)
    before = [value.numpy() for value in keras.tree.flatten(model(inputs))]
    smaller = remove_filters(model, share, **options)
    received = keras.tree.flatten(smaller(inputs))
    assert smaller.count_params() < model.count_params()
    assert [value.shape for value in smaller.outputs] == [value.shape for value in model.outputs]
    for one, other in zip(received, masked_outputs(model, smaller, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    # The reference would say the same of a student that was changed.
    for one, other in zip(before, keras.tree.flatten(model(inputs)), strict=True):
        np.testing.assert_array_equal(one, other)
    return smaller


def widths(model):
    """The size of the last axis of each mixing layer's output, by name."""
    return {
        layer.name: layer.output.shape[-1] for layer in model.layers if isinstance(layer, MIXING)
    }


def chain(*stack, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *stack])


def conv(filters, name=None, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", name=name, **options)


def head(x, classes=3):
    return layers.Dense(classes, name="logits")(layers.GlobalAveragePooling2D()(x))


def residual_net():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(conv(8, "stem")(inputs)))
    for block in "ab":
        y = layers.ReLU()(layers.BatchNormalization()(conv(6, f"{block}1")(x)))
        y = layers.BatchNormalization()(conv(8, f"{block}2")(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, head(x))


def inverted_residual_net():
    """As in MobileNetV2 and V3: expansion, depthwise convolution, gate, projection."""
    inputs = keras.Input((8, 8, 3))
    x = conv(4, "stem")(inputs)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(conv(12, "expand", 1)(x)))
    y = layers.ZeroPadding2D()(y)
    y = layers.DepthwiseConv2D(3)(y)
    y = layers.Activation("hard_silu")(layers.BatchNormalization()(y))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = conv(3, "squeeze", 1, activation="relu")(gate)
    gate = conv(12, "excite", 1, activation="hard_sigmoid")(gate)
    y = conv(4, "project", 1)(layers.Multiply()([y, gate]))
    return keras.Model(inputs, head(layers.Add()([x, y])))


def dense_net():
    inputs = keras.Input((8, 8, 3))
    x = conv(4, "stem")(inputs)
    for number in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, conv(4, f"growth{number}")(y)])
    return keras.Model(inputs, head(x))


def test_a_chain_loses_the_share_asked_for_of_every_layer_but_the_last():
    model = chain(
        conv(8, "first"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        conv(6, "second", activation="relu"),
        layers.Flatten(),
        layers.Dense(10, activation="relu", name="hidden"),
        layers.Dropout(0.5),
        layers.Dense(3, name="logits"),
    )
    smaller = check(model, 0.5)
    assert widths(smaller) == {"first": 4, "second": 3, "hidden": 5, "logits": 3}
    assert smaller.get_layer("hidden").kernel.shape == (4 * 4 * 3, 5)
    assert smaller.get_layer("second").kernel.shape == (3, 3, 4, 3)


def test_the_filters_that_stay_are_those_of_the_largest_norm():
    model = randomized(chain(conv(8, "first"), layers.Flatten(), layers.Dense(3)))
    norms = np.abs(np.asarray(model.get_layer("first").kernel)).sum((0, 1, 2))
    smaller = remove_filters(model, 0.25)
    kept = np.sort(np.argsort(norms)[2:])
    for weight in ("kernel", "bias"):
        before, after = (getattr(m.get_layer("first"), weight) for m in (model, smaller))
        np.testing.assert_array_equal(after, np.asarray(before)[..., kept])


@pytest.mark.parametrize("build", [residual_net, inverted_residual_net, dense_net])
@pytest.mark.parametrize("importance", ["l1", "l2", "batch_normalization"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_outputs_are_those_of_the_masked_student(build, importance, scope):
    check(build(), 0.4, importance=importance, scope=scope)


def test_layers_that_are_added_lose_the_same_filters():
    smaller = check(residual_net(), 0.5)
    assert widths(smaller) == {"stem": 4, "a1": 3, "a2": 4, "b1": 3, "b2": 4, "logits": 3}


def test_a_gate_loses_the_channels_of_what_it_multiplies():
    smaller = check(inverted_residual_net(), 0.5)
    assert widths(smaller) == {
        "stem": 2,
        "expand": 6,
        "squeeze": 2,
        "excite": 6,
        "project": 2,
        "logits": 3,
    }
