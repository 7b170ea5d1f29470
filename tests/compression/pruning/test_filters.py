"""Removed filters are compared with a student in which every reader is given 0 in their place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd
from keras_kd.compression import (
    PolynomialSchedule,
    prune,
    quantize_aware,
    remove_filters,
    strip,
    summary,
    to_tf_keras,
)
from keras_kd.data import load_sample
from keras_kd.tflite import convert

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
    inputs = sample(model)
    inputs = inputs if len(inputs) > 1 else inputs[0]
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


@pytest.mark.parametrize("build", [residual_net, inverted_residual_net, dense_net, operations_net])
@pytest.mark.parametrize(
    ("importance", "scope"),
    [("l1", "layer"), ("l2", "global"), ("batch_normalization", "global")],
)
def test_outputs_are_those_of_the_masked_student(build, importance, scope):
    check(build(), 0.4, importance=importance, scope=scope)


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


def through(*stack, shape=(8, 8, 3), classes=3):
    """`stack` between a convolution and a Dense layer on everything."""
    return chain(
        conv(8, "first"),
        *stack,
        layers.Flatten(),
        layers.Dense(classes, name="logits"),
        shape=shape,
    )


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
    smaller = check_unknown_size()
    assert widths(smaller) == {"first": 4, "second": 2, "logits": 3}


def check_unknown_size():
    inputs = keras.Input((None, None, 3))
    x = layers.MaxPooling2D()(conv(8, "first", activation="relu")(inputs))
    model = randomized(keras.Model(inputs, head(conv(4, "second")(x))))
    smaller = remove_filters(model, 0.5)
    assert smaller.input_shape == (None, None, None, 3)
    x = np.random.default_rng(0).normal(size=(3, 6, 7, 3)).astype("float32")
    np.testing.assert_allclose(smaller(x), masked_outputs(model, smaller, x)[0], atol=1e-5)
    return smaller


def test_parts_of_a_concatenation_that_something_is_added_to():
    inputs = keras.Input((8, 8, 3))
    both = layers.Concatenate()([conv(4, "left")(inputs), conv(6, "right")(inputs)])
    total = layers.Add()([both, conv(10, "whole")(inputs)])
    assert widths(check(keras.Model(inputs, head(total)))) == {
        "left": 2,
        "right": 3,
        "whole": 5,
        "logits": 3,
    }


def test_a_single_channel_that_is_spread_over_many_stays():
    inputs = keras.Input((8, 8, 3))
    attention = conv(1, "attention", activation="sigmoid")(inputs)
    x = layers.Multiply()([conv(8, "values")(inputs), attention])
    assert widths(check(keras.Model(inputs, head(x)))) == {
        "attention": 1,
        "values": 4,
        "logits": 3,
    }


def test_branches_joined_along_another_axis_lose_the_same_filters():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate(axis=1)([conv(6, "up")(inputs), conv(6, "down")(inputs)])
    assert widths(check(keras.Model(inputs, head(x)))) == {"up": 3, "down": 3, "logits": 3}


def test_a_shared_layer_has_the_same_filters_in_all_its_calls():
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    shared, normalization = conv(8, "shared"), layers.BatchNormalization()
    second = layers.Dense(6, name="second", activation="relu")
    pooled = [
        second(layers.GlobalAveragePooling2D()(normalization(shared(x)))) for x in (left, right)
    ]
    model = keras.Model([left, right], layers.Dense(3, name="logits")(layers.Concatenate()(pooled)))
    assert widths(check(model)) == {"shared": 4, "second": 3, "logits": 3}


def test_a_nested_model_is_flattened_and_keeps_what_is_frozen():
    backbone = keras.Sequential(
        [keras.Input((8, 8, 3)), conv(8, "inside"), layers.BatchNormalization()], name="backbone"
    )
    backbone.trainable = False
    inputs = keras.Input((8, 8, 3))
    model = randomized(keras.Model(inputs, head(backbone(inputs))))
    smaller = remove_filters(model, 0.5)
    assert widths(smaller) == {"inside": 4, "logits": 3}
    assert not smaller.get_layer("inside").trainable
    x = sample(model)[0]
    flat = keras.Model(inputs, head(backbone.layers[1](backbone.layers[0](inputs))))
    flat.set_weights(model.get_weights())
    np.testing.assert_allclose(smaller(x), masked_outputs(flat, smaller, x)[0], atol=1e-5)


def test_outputs_keep_their_channels():
    inputs = keras.Input((8, 8, 3))
    features = conv(6, "features")(inputs)
    hidden = conv(6, "hidden")(features)
    model = keras.Model(inputs, {"features": features, "logits": head(hidden)})
    randomized(model)
    smaller = remove_filters(model, 0.5)
    assert widths(smaller) == {"features": 6, "hidden": 3, "logits": 3}
    x = sample(model)[0]
    np.testing.assert_array_equal(smaller(x)["features"], model(x)["features"])


class Twice(layers.Layer):
    """Of which nobody else knows what it does."""

    def call(self, x):
        return 2 * x


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


@pytest.mark.parametrize("seed", range(12))
def test_outputs_of_random_students_are_those_of_the_masked_student(seed):
    generator = np.random.default_rng(seed)
    check(
        random_net(generator),
        float(generator.uniform(0.2, 0.9)),
        importance=generator.choice(["l1", "l2"]).item(),
        scope=generator.choice(["layer", "global"]).item(),
        minimum=int(generator.integers(1, 3)),
    )


def random_net(generator):
    """Layers drawn at random; the last few tensors can be joined wherever their shapes fit."""
    inputs = keras.Input((8, 8, 3))
    tensors = [conv(int(generator.integers(4, 9)))(inputs)]
    for _ in range(generator.integers(5, 12)):
        x = tensors[generator.integers(max(0, len(tensors) - 3), len(tensors))]
        tensors.append(_random_step(generator, x, tensors))
    pooled = [layers.GlobalAveragePooling2D()(x) for x in tensors[-2:]]
    flat = layers.Flatten()(tensors[-1])
    hidden = layers.Dense(8, activation="relu")(layers.Concatenate()([*pooled, flat]))
    return keras.Model(inputs, layers.Dense(3, name="logits")(hidden))


def _random_step(generator, x, tensors):
    width = x.shape[-1]
    same_size = [y for y in tensors if y.shape[1:3] == x.shape[1:3]]
    joined = [same_size[generator.integers(len(same_size))] for _ in range(2)]
    same_shape = [y for y in joined if y.shape == x.shape]
    gate = layers.Dense(width, activation="sigmoid")(layers.GlobalMaxPooling2D(keepdims=True)(x))
    steps = [
        lambda: conv(int(generator.integers(3, 9)), activation="relu")(x),
        lambda: conv(width)(x),
        lambda: layers.ReLU()(layers.BatchNormalization()(x)),
        lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
        lambda: layers.SeparableConv2D(int(generator.integers(3, 9)), 3, padding="same")(x),
        lambda: layers.Conv2DTranspose(int(generator.integers(3, 9)), 3, padding="same")(x),
        lambda: layers.PReLU(shared_axes=[1, 2])(x),
        lambda: layers.Concatenate()([x, *joined]),
        lambda: layers.Add()([x, *same_shape, conv(width)(x)]),
        lambda: layers.Maximum()([x, *same_shape, x]),
        lambda: layers.Multiply()([x, gate]),
        lambda: layers.Reshape((x.shape[2], x.shape[1], width))(x),
    ]
    return steps[generator.integers(len(steps))]()


def test_chosen_layers_become_narrower_and_others_do_not():
    model = chain(
        conv(8, "first"),
        conv(8, "second"),
        layers.Flatten(),
        layers.Dense(8, name="hidden"),
        layers.Dense(2, name="logits"),
    )
    before = {"first": 8, "second": 8, "hidden": 8, "logits": 2}
    assert widths(remove_filters(model, layers="first")) == {**before, "first": 4}
    assert widths(remove_filters(model, layers=layers.Dense)) == {**before, "hidden": 4}
    assert widths(remove_filters(model, skip=["first", layers.Dense])) == {**before, "second": 4}
    chosen = remove_filters(model, layers=lambda layer: layer.name.endswith("d"))
    assert widths(chosen) == {**before, "second": 4}


def test_layers_that_are_coupled_follow_a_chosen_one_and_stay_with_a_skipped_one():
    model = randomized(residual_net())
    chosen = widths(remove_filters(model, 0.5, layers="a2"))
    assert chosen == {"stem": 4, "a1": 6, "a2": 4, "b1": 6, "b2": 4, "logits": 3}
    others = widths(remove_filters(model, 0.5, skip="a2"))
    assert others == {"stem": 8, "a1": 3, "a2": 8, "b1": 3, "b2": 8, "logits": 3}


def test_how_many_filters_are_kept():
    model = randomized(
        chain(conv(20, "first"), conv(10, "second"), conv(4, "third"), conv(2, "last"))
    )

    def kept(*args, **options):
        return list(widths(remove_filters(model, *args, **options)).values())

    # 0.7 * 10 is 7 in decimals only.
    assert kept(0.7) == [6, 3, 2, 2]
    assert kept(0.9) == [2, 1, 1, 2]
    assert kept(0.9, minimum=3) == [3, 3, 3, 2]
    assert kept(0.7, multiple_of=4) == [8, 4, 4, 2]


def test_globally_the_least_filters_of_all_go():
    model = randomized(chain(conv(8, "first"), conv(8, "second"), conv(2, "last")))
    weight = model.get_layer("first").kernel
    # Seven filters of the first layer are much smaller than its mean.
    weight.assign(np.asarray(weight) * np.array([1.0] + [1e-3] * 7))
    smaller = remove_filters(model, 0.25, scope="global")
    assert widths(smaller) == {"first": 4, "second": 8, "last": 2}
    assert widths(remove_filters(model, 0.6, scope="global", minimum=2))["first"] == 2


def test_scales_of_normalizations_say_what_is_important():
    model = randomized(
        chain(
            conv(6, "first"),
            layers.BatchNormalization(name="normalization"),
            layers.Flatten(),
            layers.Dense(6, name="hidden"),
            layers.Dense(2, name="logits"),
        )
    )
    model.get_layer("normalization").gamma.assign([0.1, -2.0, 1.0, 0.2, -0.3, 3.0])
    smaller = remove_filters(model, 0.5, importance="batch_normalization")
    assert widths(smaller) == {"first": 3, "hidden": 6, "logits": 2}
    np.testing.assert_allclose(smaller.get_layer("normalization").gamma, [-2.0, 1.0, 3.0])


def test_a_function_says_what_is_important():
    model = randomized(chain(conv(6, "first"), layers.Flatten(), layers.Dense(2, name="logits")))
    smaller = remove_filters(model, 0.5, importance=lambda layer: np.arange(layer.bias.shape[0]))
    np.testing.assert_array_equal(
        smaller.get_layer("first").bias, np.asarray(model.get_layer("first").bias)[3:]
    )


def test_a_tf_keras_student_and_a_pruned_one_become_plain_keras_3_models():
    model = randomized(inverted_residual_net())
    x = sample(model)[0]
    expected = remove_filters(model, 0.5)
    for student in (to_tf_keras(model), prune(model, 0.5)):
        smaller = remove_filters(student, 0.5)
        assert isinstance(smaller, keras.Model)
        np.testing.assert_allclose(smaller(x), expected(x), atol=1e-5)


def test_the_result_is_saved_and_loaded_like_any_other(tmp_path):
    model = randomized(inverted_residual_net())
    smaller = remove_filters(model, 0.5)
    smaller.save(tmp_path / "smaller.keras")
    x = sample(model)[0]
    loaded = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(loaded(x), smaller(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, "share=0.*above 0.*every other filter"),
        ({"share": 1.0}, "share=1.0.*at most"),
        ({"share": 0.01}, "share=0.01.*of which none goes.*larger share"),
        ({"minimum": 0}, "minimum=0.*at least 1"),
        ({"multiple_of": 0}, "multiple_of=0.*at least 1"),
        ({"scope": "model"}, "scope='model'.*'layer', 'global'"),
        ({"importance": "l3"}, "importance='l3'.*'l1', 'l2', 'batch_normalization'"),
        ({"importance": lambda layer: np.ones(3)}, "shape \\(3,\\) for layer 'first'.*its 8"),
        ({"importance": lambda layer: np.full(8, np.nan)}, "not finite.*its 8 filters"),
        ({"importance": "batch_normalization"}, "none goes.*another importance"),
        ({"layers": "logits"}, "'logits'.*cannot be made narrower.*'first'"),
        ({"skip": "first"}, "no chosen layer can be made narrower"),
    ],
)
def test_errors_say_what_to_do(options, message):
    model = chain(conv(8, "first"), layers.Flatten(), layers.Dense(8, name="logits"))
    with pytest.raises(ValueError, match=message):
        remove_filters(model, **options)


def test_a_quantization_aware_student_is_refused():
    with pytest.raises(ValueError, match=r"quantization-aware already.*call `strip` first"):
        remove_filters(quantize_aware(chain(conv(4), conv(2))))


def small_net(name=None):
    """For digits, with every kind of coupling that quantization-aware training supports."""
    inputs = keras.Input((28, 28, 1))
    x = conv(16, "stem", strides=2, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    y = conv(16, "branch", use_bias=False)(x)
    x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization(momentum=0.9)(y)]))
    x = conv(32, "wide", strides=2, activation="relu")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name=name)


@pytest.mark.slow
def test_a_smaller_student_is_pruned_quantized_and_converted_like_any_other():
    student = remove_filters(small_net(), 0.5)
    x = np.random.default_rng(0).random((8, 28, 28, 1), dtype="float32")
    file = convert(student)
    np.testing.assert_allclose(file.predict(x), student(x), atol=1e-4)
    assert file.size < convert(small_net()).size / 2
    quantized = quantize_aware(student, x)
    assert convert(quantized, "int8", x).size < file.size
    pruned = prune(student, 0.5, schedule=PolynomialSchedule(end_step=4))
    pruned.compile("adam", "mse")
    pruned.fit(x, np.zeros((8, 10)), epochs=8, verbose=0, callbacks=pruned.training_callbacks())
    stripped = strip(pruned)
    assert summary(stripped).sparsity == pytest.approx(0.5, abs=0.02)
    assert widths(stripped) == widths(student)


@pytest.mark.slow
def test_a_teacher_brings_back_what_removing_filters_has_cost():
    keras.utils.set_random_seed(0)
    digits = load_sample().first(4000, 1000)

    def train(model, epochs):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
        model.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=64, verbose=0)

    def accuracy(model):
        answers = model.predict(digits.x_test, verbose=0).argmax(axis=1)
        return float(np.mean(answers == digits.y_test))

    teacher = small_net("teacher")
    train(teacher, 3)
    student = remove_filters(teacher, 0.5)
    whole, damaged = accuracy(teacher), accuracy(student)
    train(keras_kd.Distiller(teacher, student), 2)
    assert damaged < whole - 0.1
    assert accuracy(student) > whole - 0.02
    assert student.count_params() < 0.3 * teacher.count_params()
