import keras
import pytest
from keras import layers

from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.forms import FORMS
from keras_kd.tflite.conversion.layer_names import layer_names
from keras_kd.tflite.conversion.recipes import read_operators
from keras_kd.tflite.student import Signature

pytest.importorskip("ai_edge_quantizer", reason="needs the `int4` extra")


def operators(student):
    """Kind and layers of each operator of the float file."""
    from keras_kd.tflite.conversion.forms import Options

    signature = Signature(student)
    content = run_converter(signature, Options(FORMS["float32"]), None)
    found = read_operators(content, layer_names(signature))
    return [(operator.type_name, operator.layers) for operator in found]


def test_names_that_tensorflow_cannot_tell_apart():
    """Each layer opens its scope twice: "conv_1" may be the layer "conv" as well."""
    inner = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Conv2D(4, 3, name="conv_1"),
        ],
        name="backbone",
    )
    image = keras.Input((12, 12, 1), name="image")
    x = layers.DepthwiseConv2D(3, name="conv_1_1")(inner(image))
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="conv")(x))
    x = layers.Flatten(name="flat")(x)
    hidden = layers.Dense(3, name="hidden")(x)
    outputs = [layers.Dense(2, name="kind")(hidden), layers.Softmax(name="scores")(hidden)]
    assert operators(keras.Model(image, outputs)) == [
        ("CONV_2D", ("backbone/conv",)),
        ("CONV_2D", ("backbone/conv_1",)),
        ("DEPTHWISE_CONV_2D", ("conv", "conv_1_1", "relu")),
        ("RESHAPE", ("flat",)),
        ("FULLY_CONNECTED", ("hidden",)),
        # The converter calls both outputs StatefulPartitionedCall.
        ("FULLY_CONNECTED", ("kind",)),
        ("SOFTMAX", ("scores",)),
    ]


def test_tf_keras():
    import tf_keras

    own = tf_keras.layers
    student = tf_keras.Sequential(
        [tf_keras.Input((5,)), own.Dense(4, name="dense"), own.Dense(3, name="dense_1")]
    )
    assert operators(student) == [
        ("FULLY_CONNECTED", ("dense",)),
        ("FULLY_CONNECTED", ("dense_1",)),
    ]


class Gate(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(5, activation="sigmoid")

    def call(self, x):
        return x * self.inner(x)


def test_layers_made_of_layers_and_shared_layers():
    shared = layers.Dense(5, name="shared")
    x = numbers = keras.Input((5,))
    x = Gate(name="gate")(shared(shared(x)))
    student = keras.Model(numbers, layers.Dense(2, name="last")(x))
    names = [found for _, found in operators(student)]
    assert names[:2] == [("shared",), ("shared",)]
    assert set(names[2:-1]) == {("gate",)}
    assert names[-1] == ("last",)


def test_nothing_is_left_behind():
    student = keras.Sequential([keras.Input((5,)), layers.Dense(4, name="dense")])
    assert list(layer_names(Signature(student)).scopes.values()) == [("dense",)]
    assert "call" not in vars(student.get_layer("dense"))
