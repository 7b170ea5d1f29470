"""Filters that go together or stay together: sums, products, branches, shared and nested layers."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import remove_filters

from _filters import (
    check,
    conv,
    dense_net,
    head,
    inverted_residual_net,
    masked_outputs,
    operations_net,
    residual_net,
    widths,
)
from _models import inputs_for, randomized


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize("build", [residual_net, inverted_residual_net, dense_net, operations_net])
@pytest.mark.parametrize(
    ("importance", "scope"),
    [("l1", "layer"), ("l2", "global"), ("batch_normalization", "global")],
)
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


def test_layers_that_are_coupled_follow_a_chosen_one_and_stay_with_a_skipped_one():
    model = randomized(residual_net())
    chosen = widths(remove_filters(model, 0.5, layers="a2"))
    assert chosen == {"stem": 4, "a1": 6, "a2": 4, "b1": 6, "b2": 4, "logits": 3}
    others = widths(remove_filters(model, 0.5, skip="a2"))
    assert others == {"stem": 8, "a1": 3, "a2": 8, "b1": 3, "b2": 8, "logits": 3}


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
    x = inputs_for(model)
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
    x = inputs_for(model)
    np.testing.assert_array_equal(smaller(x)["features"], model(x)["features"])


@pytest.mark.fast_rows(3)
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
