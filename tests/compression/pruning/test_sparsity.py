import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import cluster, prune, quantize_aware, sparsity, to_tf_keras


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
    assert measured.layers == {"separable": 0.0, "dense": 0.75}
    assert (measured.weights, measured.zeros, measured.overall) == (34, 24, 24 / 34)
    assert str(measured).splitlines() == [
        "layer      kernel            weights  zeros  share",
        "separable  pointwise_kernel        2      0   0.0%",
        "dense      kernel                 32     24  75.0%",
        "overall                           34     24  70.6%",
    ]


def test_each_kernel_of_a_layer_has_a_row():
    model = keras.Sequential(
        [keras.Input((3, 2)), layers.Bidirectional(layers.LSTM(2), name="both")]
    )
    backward = model.layers[0].backward_layer.cell
    backward.recurrent_kernel.assign(np.zeros((2, 8)))
    measured = sparsity(model)
    assert [(row.kernel, row.weights, row.zeros) for row in measured.kernels] == [
        ("forward_layer/kernel", 16, 0),
        ("forward_layer/recurrent_kernel", 16, 0),
        ("backward_layer/kernel", 16, 0),
        ("backward_layer/recurrent_kernel", 16, 16),
    ]
    assert measured.layers == {"both": 0.25}


def test_a_depthwise_kernel_counts_once_it_has_a_zero():
    model = half_zero()
    kernel = np.ones((2, 2, 1, 1))
    kernel[0] = 0
    model.layers[0].kernel.assign(kernel)
    assert sparsity(model).layers[model.layers[0].name] == 0.5


@pytest.mark.parametrize("compress", [cluster, quantize_aware])
def test_clustered_and_quantization_aware_students(compress):
    student = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="dense")])
    kernel = np.random.default_rng(0).normal(size=(4, 8))
    kernel[:2] = 0
    student.layers[0].kernel.assign(kernel)
    assert sparsity(compress(student)).layers == {"dense": 0.5}


def test_layers_inside_nested_models_count():
    assert sparsity(keras.Sequential([keras.Input((4, 4, 1)), half_zero()])).layers["dense"] == 0.75


def test_a_model_without_prunable_weights():
    with pytest.raises(ValueError, match=r"without a layer that can be pruned.*Dense"):
        sparsity(keras.Sequential([keras.Input((4,)), layers.ReLU()]))


def test_what_is_no_model():
    with pytest.raises(ValueError, match=r"Received model='student'"):
        sparsity("student")
