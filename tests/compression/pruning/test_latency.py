import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from keras import layers
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_policy

from keras_kd.compression import (
    PolynomialSchedule,
    layers_for_xnnpack,
    prune,
    strip,
    summary,
    to_tf_keras,
)


def mobile(
    *,
    padding=1,
    strides=2,
    first="valid",
    between=(),
    pooling=layers.GlobalAveragePooling2D,
    channels=3,
):
    """A small model of the form that XNNPACK can skip zeros in, unless an argument spoils it."""
    inputs = keras.Input((12, 12, channels))
    x = layers.Rescaling(2.0)(inputs)
    x = layers.ZeroPadding2D(padding)(x)
    x = layers.Conv2D(8, 3, strides=strides, padding=first, name="first")(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    for layer in between:
        x = layer(x)
    x = layers.Conv2D(16, 1, name="expand")(x)
    x = layers.Activation("relu")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise")(x)
    shortcut = layers.Conv2D(8, 1, name="project")(x)
    x = layers.Add()([shortcut, layers.Conv2D(8, 1, name="again")(shortcut)])
    x = layers.Flatten()(x) if pooling is None else pooling()(x)
    return keras.Model(inputs, layers.Dense(4, name="logits")(x), name="mobile")


class Pooled(layers.GlobalAveragePooling2D):
    """A pooling of a class that nobody knows."""


MODELS = {
    "as it should be": ({}, None),
    "twice the padding": ({"padding": 2}, "ZeroPadding2D of 1 and after it a 3x3 Conv2D"),
    "no stride": ({"strides": 1}, "ZeroPadding2D of 1 and after it a 3x3 Conv2D"),
    "same": ({"first": "same"}, "ZeroPadding2D of 1 and after it a 3x3 Conv2D"),
    "grey": ({"channels": 1}, "3 input channels"),
    "flat": ({"pooling": None}, "on every way to the outputs a GlobalAveragePooling2D"),
    "large kernel": ({"between": [layers.Conv2D(8, 3, name="odd")]}, "layer 'odd'.*Conv2D"),
    "dilated": (
        {"between": [layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, name="odd")]},
        "layer 'odd'.*DepthwiseConv2D",
    ),
    "strided without padding": (
        {"between": [layers.DepthwiseConv2D(3, strides=2, padding="same", name="odd")]},
        "layer 'odd'.*DepthwiseConv2D",
    ),
    "large depthwise": (
        {"between": [layers.ZeroPadding2D(2), layers.DepthwiseConv2D(5)]},
        None,
    ),
    "softplus": ({"between": [layers.Activation("softplus", name="odd")]}, "'odd'.*Activation"),
    "pooled": ({"between": [layers.MaxPooling2D(1, name="odd")]}, "layer 'odd'.*MaxPooling2D"),
    "upsampled": ({"between": [layers.UpSampling2D(2, interpolation="bilinear")]}, None),
    "squeezed": ({"between": [layers.Dropout(0.1), layers.LeakyReLU()]}, None),
}


@pytest.mark.fast_rows(5)
@pytest.mark.parametrize("name", MODELS)
def test_the_verdict_is_that_of_tf_mot_and_names_the_layer(name):
    options, message = MODELS[name]
    student = mobile(**options)
    policy = pruning_policy.PruneForLatencyOnXNNPack()
    if message is None:
        policy.ensure_model_supports_pruning(to_tf_keras(student))
        layers_for_xnnpack(student)
        return
    with pytest.raises(ValueError):  # noqa: PT011 - what TF-MOT says is not ours
        policy.ensure_model_supports_pruning(to_tf_keras(student))
    with pytest.raises(ValueError, match=rf"the student 'mobile'.*{message}"):
        layers_for_xnnpack(student)


def test_a_nested_body_is_looked_into():
    body = mobile()
    student = keras.Sequential([keras.Input((12, 12, 3)), body, layers.ReLU()])
    assert layers_for_xnnpack(student) == ["expand", "project", "again"]


def test_only_pointwise_convolutions_are_pruned_and_their_zeros_are_stored_sparsely():
    student = mobile()
    pruned = prune(
        student, 0.75, layers=layers_for_xnnpack(student), schedule=PolynomialSchedule(end_step=2)
    )
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")
    pruned.fit(x, np.zeros((8, 4)), batch_size=2, verbose=0)
    student = strip(pruned)
    assert summary(student).sparsities == {
        "first": 0.0,
        "expand": 0.75,
        "depthwise": 0.0,
        "project": 0.75,
        "again": 0.75,
        "logits": 0.0,
    }
    # XNNPACK reads zeros out of tensors that are stored as sparse, between a DENSIFY each.
    converter = tf.lite.TFLiteConverter.from_keras_model(to_tf_keras(student))
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    model = schema.ModelT.InitFromPackedBuf(converter.convert(), 0)
    graph = model.subgraphs[0]
    sparse = [tuple(tensor.shape) for tensor in graph.tensors if tensor.sparsity is not None]
    assert sorted(sparse) == [(8, 1, 1, 8), (8, 1, 1, 16), (16, 1, 1, 8)]
    codes = [code.builtinCode for code in model.operatorCodes]
    assert schema.BuiltinOperator.DENSIFY in codes


def test_layers_can_be_left_out_of_those_that_xnnpack_supports():
    student = mobile()
    pruned = prune(student, layers=layers_for_xnnpack(student), skip=["again"])
    names = [layer.layer.name for layer in pruned.layers if hasattr(layer, "pruning_vars")]
    assert names == ["expand", "project"]
