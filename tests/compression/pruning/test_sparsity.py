import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import Sparsity, prune, sparsity, to_tf_keras


def half_zero():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.DepthwiseConv2D(2),
            layers.SeparableConv2D(2, 2, name="separable"),
            layers.Flatten(),
            layers.Dense(4, name="dense"),
        ]
    )
    kernel = np.ones((8, 4))
    kernel[:6] = 0
    model.get_layer("dense").kernel.assign(kernel)
    return model


@pytest.mark.parametrize("form", [lambda model: model, to_tf_keras, prune])
def test_share_of_zeros_overall_and_per_layer(form):
    measured = sparsity(form(half_zero()))
    assert measured == Sparsity(24 / 34, {"separable": 0.0, "dense": 0.75})
    assert str(measured).splitlines() == [
        "   0.0%  separable",
        "  75.0%  dense",
        "  70.6%  overall",
    ]


def test_layers_inside_nested_models_count():
    assert sparsity(keras.Sequential([keras.Input((4, 4, 1)), half_zero()])).layers["dense"] == 0.75


def test_a_model_without_prunable_weights():
    with pytest.raises(ValueError, match=r"without a layer that can be pruned.*Dense"):
        sparsity(keras.Sequential([keras.Input((4,)), layers.ReLU()]))


def test_what_is_no_model():
    with pytest.raises(ValueError, match=r"Received model='student'"):
        sparsity("student")
