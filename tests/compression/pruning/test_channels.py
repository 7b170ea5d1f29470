import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.pruning.channels import STAYS, channels_of


def blocks_by_name(channels):
    names = channels.graph.names()
    return {
        frozenset(names[key] for key in writers): len(groups)
        for writers, groups in channels.blocks().items()
    }


def test_layers_that_can_only_become_narrower_together_are_a_block():
    inputs = keras.Input((8,))
    left = layers.Dense(6, name="left")(inputs)
    right = layers.Dense(6, name="right")(inputs)
    alone = layers.Dense(4, name="alone")(inputs)
    joined = layers.Concatenate()([layers.Add()([left, right]), alone])
    added = layers.Add()([joined, layers.Dense(10, name="whole")(inputs)])
    channels = channels_of(graphs.read(keras.Model(inputs, layers.Dense(2, name="last")(added))))
    assert blocks_by_name(channels) == {
        frozenset({"left", "right", "whole"}): 6,
        frozenset({"alone", "whole"}): 4,
    }


def test_each_unit_of_a_flattened_map_is_of_its_channel():
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1)),
            layers.Conv2D(3, 1),
            layers.Flatten(),
            layers.Dense(2, name="last"),
        ]
    )
    channels = channels_of(graphs.read(model))
    (written,) = [cut.groups for cut in channels.writes if cut.layer is model.layers[0]]
    (read,) = [cut.groups for cut in channels.reads if cut.layer is model.layers[-1]]
    np.testing.assert_array_equal(read, np.tile(written, 4))
    (last,) = [cut.groups for cut in channels.writes if cut.layer is model.layers[-1]]
    np.testing.assert_array_equal(last, [STAYS] * 2)


def test_looking_leaves_no_trace_in_the_student():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    calls = [len(layer._inbound_nodes) for layer in model.layers]
    channels_of(graphs.read(model))
    assert [len(layer._inbound_nodes) for layer in model.layers] == calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_known_networks_without_any_half_of_each_block(name):
    generator = np.random.default_rng(0)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation=None
    )
    for weight in model.weights:
        low, high = (0.8, 1.2) if weight.name in ("gamma", "moving_variance") else (-0.2, 0.2)
        if weight.name in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            weight.assign(generator.uniform(low, high, weight.shape))
    channels = channels_of(graphs.read(model))
    removed = set()
    for groups in channels.blocks().values():
        removed.update(generator.choice(groups, len(groups) // 2, replace=False).tolist())
    smaller = channels.without(removed, record_of)
    # A quarter of the weights, but for those of the first and the last layer.
    assert smaller.count_params() < 0.3 * model.count_params()
    for cut in channels.reads:
        (kernel,) = [weight for weight in cut.layer.weights if weight.name == cut.weight]
        values = np.moveaxis(kernel.numpy(), cut.axis, 0)
        values[np.isin(cut.groups, list(removed))] = 0
        kernel.assign(np.moveaxis(values, 0, cut.axis))
    x = generator.normal(size=(2, 32, 32, 3)).astype("float32")
    expected = model(x).numpy()
    np.testing.assert_allclose(smaller(x), expected, atol=1e-5 * np.abs(expected).max())
