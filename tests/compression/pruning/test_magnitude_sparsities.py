import keras
import pytest
from keras import layers

from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.pruning.magnitude import sparsities


def model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.Flatten(),
            layers.Dense(4, name="hidden"),
            layers.Dense(4, name="frozen", trainable=False),
            layers.Dense(2, name="logits"),
        ]
    )


def shares(final, layers=None, skip=None):
    return sparsities(graphs.read(model()), final, layers, skip)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.5,), {"conv": 0.5, "hidden": 0.5, "logits": 0.5}),
        ((0.5, ["conv"]), {"conv": 0.5}),
        ((0.5, layers.Dense, ["hidden"]), {"logits": 0.5}),
        # A depthwise kernel is pruned where it is asked for.
        ((0.5, ["conv", "depthwise"]), {"conv": 0.5, "depthwise": 0.5}),
        (({layers.DepthwiseConv2D: 0.25},), {"depthwise": 0.25}),
        # A name goes before a type, in whatever order.
        (({"hidden": 0.9, layers.Dense: 0.3},), {"hidden": 0.9, "logits": 0.3}),
        (({"hidden": 0.9, layers.Dense: 0.3}, None, ["logits"]), {"hidden": 0.9}),
        (({layers.Dense: 0.3}, ["conv", "hidden"]), {"hidden": 0.3}),
        ((lambda layer: 0.2 if layer.name == "conv" else None,), {"conv": 0.2}),
    ],
)
def test_how_sparse_each_layer_becomes(arguments, expected):
    assert shares(*arguments) == expected


@pytest.mark.parametrize(
    ("final", "error", "message"),
    [
        ({"hidden": 1.2}, ValueError, "sparsity of layer 'hidden'=1.2.*at most"),
        ({"hiden": 0.5}, ValueError, r"'hiden'.*write 'hidden'"),
        ({"frozen": 0.5}, ValueError, r"\['frozen'\] cannot be pruned"),
        ({3: 0.5}, TypeError, r"keys \[3\].*names or types"),
        ({}, ValueError, "no chosen layer can be pruned"),
        (lambda layer: None, ValueError, "no chosen layer can be pruned"),
        (lambda layer: 0, ValueError, "layer 'conv'=0.*leave out layers"),
        ({"hidden": "0.5"}, TypeError, "sparsity of layer 'hidden'='0.5'"),
    ],
)
def test_what_cannot_be(final, error, message):
    with pytest.raises(error, match=message):
        shares(final)


def test_a_share_for_layers_that_are_not_chosen():
    with pytest.raises(ValueError, match=r"layers=\['conv'\].*none of.*'hidden'"):
        shares({"hidden": 0.5}, ["conv"])
