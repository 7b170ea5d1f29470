import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.pruning.channels import channels_of
from keras_kd.compression.pruning.importance import group_scores


def two_that_are_added():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    left = layers.Conv2D(5, 3, name="left")(inputs)
    right = layers.Conv2DTranspose(5, 3, padding="valid", name="right")(inputs)
    right = layers.Cropping2D(2)(layers.BatchNormalization(name="scale")(right))
    x = layers.GlobalAveragePooling2D()(layers.Add()([left, right]))
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


@pytest.mark.parametrize("order", [1, 2])
def test_norms_are_means_over_layers_in_units_of_each_layers_mean(order):
    model = two_that_are_added()
    expected = np.zeros(5)
    for name, axis in (("left", 3), ("right", 2)):
        kernel = model.get_layer(name).kernel.numpy().astype("float64")
        others = tuple({0, 1, 2, 3} - {axis})
        norms = np.sum(np.abs(kernel) ** order, axis=others) ** (1 / order)
        expected += norms / norms.mean() / 2
    scores = group_scores(channels_of(graphs.read(model)), f"l{order}")
    # Groups are numbered in the order of the filters.
    np.testing.assert_allclose([scores[group] for group in sorted(scores)], expected)


def test_scales_of_normalizations_count_by_their_size():
    model = two_that_are_added()
    model.get_layer("scale").gamma.assign([1.0, -4.0, 2.0, 0.0, -3.0])
    scores = group_scores(channels_of(graphs.read(model)), "batch_normalization")
    assert [scores[group] for group in sorted(scores)] == [1.0, 4.0, 2.0, 0.0, 3.0]


def test_a_layer_of_zeros_has_scores():
    model = two_that_are_added()
    for name in ("left", "right"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.zeros(kernel.shape))
    assert set(group_scores(channels_of(graphs.read(model)), "l1").values()) == {0.0}
