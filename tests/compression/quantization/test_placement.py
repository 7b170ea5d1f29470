import keras
import pytest
import tf_keras
from keras import layers
from tf_keras import layers as tf_layers

from keras_kd.compression.bridge.graph import read
from keras_kd.compression.layers import Rounding
from keras_kd.compression.quantization.placement import (
    inputs_to_quantize,
    kind_of,
    place,
    supports,
)


def placed(model, without=(), per_channel=True):
    """The placements in a tf_keras model by name, and the positions of the quantized inputs."""
    graph = read(model)
    chosen = [layer.name for layer in graph.layers() if layer.name not in without]
    found = place(graph, chosen, per_channel)
    inputs = inputs_to_quantize(graph, found)
    return {layer.name: found[id(layer)] for layer in graph.layers()}, inputs


def chain(*stack, shape=(8, 8, 2)):
    return tf_keras.Sequential([tf_layers.Input(shape), *stack])


@pytest.mark.parametrize(
    ("second", "is_fused"),
    [
        (tf_layers.ReLU, True),
        (lambda name: tf_layers.ReLU(6.0, name=name), True),
        (lambda name: tf_layers.ReLU(1.0, name=name), False),
        (lambda name: tf_layers.ReLU(negative_slope=0.1, name=name), False),
        (lambda name: tf_layers.Activation("relu6", name=name), True),
        (lambda name: tf_layers.Activation("swish", name=name), False),
        (tf_layers.LeakyReLU, False),
    ],
    ids=["relu", "relu6", "relu1", "leaky", "activation", "swish", "LeakyReLU"],
)
@pytest.mark.parametrize(
    "first",
    [lambda: tf_layers.Conv2D(4, 3, name="first"), lambda: tf_layers.Dense(4, name="first")],
)
def test_what_is_rounded_only_after_the_function_behind_it(first, second, is_fused):
    places, _ = placed(chain(first(), second(name="second")))
    assert places["first"].activation is not is_fused
    assert places["first"].weights
    assert places["second"].output


def test_a_normalization_is_folded_only_into_a_convolution_that_nothing_else_reads():
    image = tf_layers.Input((8, 8, 2))
    x = tf_layers.Conv2D(2, 1, name="alone")(image)
    x = tf_layers.BatchNormalization(name="folded")(x)
    y = tf_layers.Conv2D(2, 1, name="twice")(x)
    z = tf_layers.BatchNormalization(name="kept")(y)
    w = tf_layers.BatchNormalization(axis=1, name="on_rows")(tf_layers.Conv2D(2, 1, name="c")(z))
    places, _ = placed(tf_keras.Model(image, [tf_layers.Add()([y, z]), w]))
    assert not places["alone"].activation
    assert places["folded"].output
    assert places["twice"].activation
    assert places["kept"].output
    assert places["c"].activation


def test_shared_layers_are_rounded_by_themselves():
    vector = tf_layers.Input((4,))
    dense, relu = tf_layers.Dense(4, name="dense"), tf_layers.ReLU(name="relu")
    places, _ = placed(tf_keras.Model(vector, relu(dense(relu(dense(vector))))))
    assert places["dense"].activation
    assert places["relu"].output


def test_what_is_joined_is_rounded_after_it_is_joined():
    image = tf_layers.Input((8, 8, 2))
    parts = [
        tf_layers.Conv2D(2, 1, activation="relu", name="conv")(image),
        tf_layers.ReLU(name="relu")(image),
        tf_layers.Conv2D(2, 1, activation="sigmoid", name="sigmoid")(image),
    ]
    joined = tf_layers.Concatenate(name="joined")(parts)
    places, _ = placed(tf_keras.Model(image, joined))
    assert not places["conv"].activation
    assert not places["relu"].output
    assert places["sigmoid"].activation
    assert places["joined"].output


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (lambda: tf_layers.Conv2D(4, 3, name="l"), {"kernel": 1}),
        (lambda: tf_layers.DepthwiseConv2D(3, name="l"), {"depthwise_kernel": 2}),
        (
            lambda: tf_layers.SeparableConv2D(4, 3, name="l"),
            {"depthwise_kernel": 2, "pointwise_kernel": 1},
        ),
        (lambda: tf_layers.Conv2DTranspose(4, 3, name="l"), {"kernel": 0}),
        (lambda: tf_layers.Dense(4, name="l"), {"kernel": 0}),
    ],
)
def test_kernels_and_their_ranges(layer, axes):
    for per_channel in (True, False):
        places, _ = placed(chain(layer()), per_channel=per_channel)
        assert places["l"].weights == (axes if per_channel else dict.fromkeys(axes, 0))


def test_inputs_that_are_quantized():
    left, right = tf_layers.Input((4,), name="left"), tf_layers.Input((4,), name="right")
    words = tf_layers.Input((4,), dtype="int32", name="words")
    x = tf_layers.Dense(4)(tf_layers.Reshape((4,))(left))
    y = tf_layers.Flatten()(right)
    z = tf_layers.Rescaling(0.1, name="scale")(words)
    places, inputs = placed(tf_keras.Model([words, left, right], [x, y, z]))
    assert inputs == [1]
    assert places["scale"].kind is Rounding.FLOAT
    assert places["scale"].note == "it reads integers"


def test_layers_that_were_not_chosen():
    stack = [
        tf_layers.Conv2D(4, 3, name="conv"),
        tf_layers.BatchNormalization(name="normalization"),
        tf_layers.ReLU(name="relu"),
    ]
    places, _ = placed(chain(*stack), without=["normalization"])
    assert places["normalization"].note == "it was not chosen"
    assert places["conv"].activation


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (layers.Dense(2), Rounding.KERNEL),
        (layers.Rescaling(2.0), Rounding.OUTPUT_ONLY),
        (layers.Add(), Rounding.OUTPUT),
        (layers.Flatten(), Rounding.HANDS_ON),
        (layers.Activation("sigmoid"), Rounding.FIXED),
        (layers.Softmax(), Rounding.FIXED),
        (layers.LSTM(2), Rounding.FLOAT),
        (layers.MultiHeadAttention(1, 2), Rounding.FLOAT),
        (layers.Embedding(2, 2), Rounding.FLOAT),
        (keras.layers.Lambda(lambda x: x), Rounding.FLOAT),
    ],
    ids=lambda item: type(item).__name__,
)
def test_kinds_of_layers_of_keras_3(layer, kind):
    assert kind_of(layer) is kind
    assert supports(layer) is (kind is not Rounding.FLOAT)


def test_functions_of_ones_own_are_not_taken_for_others_of_their_name():
    def relu(x):
        return -x

    # As the bridge makes it.
    relu.keras_function = relu
    places, _ = placed(chain(tf_layers.Dense(4, name="dense"), tf_layers.Activation(relu)))
    assert places["dense"].activation
