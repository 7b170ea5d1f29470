"""Removed filters are compared with a student in which every reader is given 0 in their place."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd.compression import remove_filters

from _models import inputs_for, randomized

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
    layers.UnitNormalization,
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
    layers.RepeatVector,
)


def masked_outputs(model, smaller, inputs):
    """The outputs of `model` where its mixing layers read 0 for the channels `smaller` has lost.

    Data and flags (1 where a channel has been removed) run through the model together, as the two
    halves of a batch; a filter is known to have been removed because its bias is gone.
    """

    def run(layer):
        def masked(*args, **kwargs):
            flags = []

            def operand(leaf):
                if not tf.is_tensor(leaf):
                    return leaf
                data, flag = tf.split(leaf, 2)
                flags.append(flag)
                return data * (1 - flag) if isinstance(layer, MIXING) else data

            data = layer(*keras.tree.map_structure(operand, args), **kwargs)
            if isinstance(layer, OPAQUE):
                assert not any(flag.numpy().any() for flag in flags)
            return tf.concat([data, tf.cast(flags_after(layer, flags, data), data.dtype)], 0)

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
        if isinstance(layer, OPAQUE):
            return np.zeros(data.shape)
        # A channel that is merged must have gone from all sides; one that is spread must stay.
        assert not any(f.numpy().any() for f in flags if f.shape[-1] != data.shape[-1])
        flags = [np.broadcast_to(f, data.shape) for f in flags if f.shape[-1] == data.shape[-1]]
        for flag in flags[1:]:
            np.testing.assert_array_equal(flag, flags[0])
        return flags[0]

    both = [tf.concat([value, np.zeros_like(value)], 0) for value in keras.tree.flatten(inputs)]
    function = getattr(model, "_functional", None) or model
    outputs = function._run_through_graph(both if len(both) > 1 else both[0], operation_fn=run)
    halves = [tf.split(output, 2) for output in keras.tree.flatten(outputs)]
    assert not any(flags.numpy().any() for _, flags in halves)
    return [data.numpy() for data, _ in halves]


def check(model, share=0.5, **options):
    """Remove filters of a randomized model and compare; gives the smaller model."""
    randomized(model)
    inputs = inputs_for(model)
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


def operations_net():
    """Sums, products and activations that are no layers."""
    inputs = keras.Input((8, 8, 3))
    x = keras.ops.relu(conv(8, "stem")(inputs))
    y = layers.BatchNormalization()(conv(8, "branch")(x))
    x = x + y * (layers.ReLU(6.0)(y + 3.0) * (1 / 6))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = x * keras.ops.sigmoid(conv(8, "gate", 1)(gate))
    return keras.Model(inputs, head(conv(6, "last")(x)))


def dense_net():
    inputs = keras.Input((8, 8, 3))
    x = conv(4, "stem")(inputs)
    for number in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, conv(4, f"growth{number}")(y)])
    return keras.Model(inputs, head(x))
