import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import keras_kd.compression
from keras_kd.compression import prune, strip, to_tf_keras
from keras_kd.compression.bridge.graph import read


def run_python(code):
    """What `code` prints in a new process, without the variable that importing TF-MOT sets."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_keras_model_is_returned_as_it_is():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert strip(model) is model


def test_a_plain_tf_keras_model_becomes_a_keras_model_with_its_names_and_weights():
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Conv2D(3, 2, activation="swish", name="conv", input_shape=(4, 4, 1)),
            tf_keras.layers.LeakyReLU(0.3, name="leaky"),
            tf_keras.layers.DepthwiseConv2D(2, name="depthwise"),
            tf_keras.layers.BatchNormalization(name="normalization"),
        ]
    )
    stripped = strip(model)
    assert isinstance(stripped, keras.Model)
    assert [layer.name for layer in stripped.layers[1:]] == [layer.name for layer in model.layers]
    assert stripped.get_layer("leaky").negative_slope == 0.3
    for one, other in zip(model.get_weights(), stripped.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype("float32")
    np.testing.assert_allclose(model(x).numpy(), stripped(x).numpy(), atol=1e-6)


def test_a_layer_without_a_counterpart_is_named():
    model = tf_keras.Sequential(
        [tf_keras.layers.LocallyConnected1D(2, 2, name="odd", input_shape=(4, 3))]
    )
    with pytest.raises(ValueError, match=r"layer 'odd' of class .*LocallyConnected1D"):
        strip(model)


def test_what_is_no_model():
    with pytest.raises(ValueError, match="Received student=3"):
        strip(3)


@pytest.mark.slow
def test_the_stripped_model_loads_where_keras_kd_is_not(tmp_path):
    student = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, activation="hard_silu"), layers.Dense(2)]
    )
    path = tmp_path / "student.keras"
    strip(prune(student, 0.5)).save(path)
    code = (
        "import sys; sys.modules['keras_kd'] = None; import keras;"
        f" print(keras.models.load_model({str(path)!r}).count_params(), 'tf_keras' in sys.modules)"
    )
    assert run_python(code).split() == [str(student.count_params()), "False"]


@pytest.mark.slow
def test_importing_the_room_imports_neither_tf_keras_nor_tf_mot():
    code = (
        "import sys, keras_kd.compression;"
        " print([name for name in ('tf_keras', 'tensorflow_model_optimization')"
        " if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_every_public_name_is_documented():
    for name in keras_kd.compression.__all__:
        assert getattr(keras_kd.compression, name).__doc__


@keras.saving.register_keras_serializable("keras_kd_tests")
class Gate(layers.Layer):
    """A layer that tf_keras does not know, with a layer and a statistic of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(1, activation="sigmoid", kernel_constraint="max_norm")

    def build(self, shape):
        self.dense.build(shape)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        return x * self.dense(x)


def _plain():
    return [
        keras.Input((6, 6, 2)),
        layers.Conv2D(4, 3, activation="hard_silu", name="conv"),
        layers.BatchNormalization(name="normalization"),
        layers.SeparableConv2D(4, 2, name="separable"),
        layers.PReLU(name="prelu"),
        layers.Flatten(name="flat"),
        layers.Dense(4, name="hidden"),
        layers.Dense(2, name="outputs"),
    ]


def _partly_frozen():
    stack = _plain()
    for layer in stack[1:4]:
        layer.trainable = False
    return stack


def _nested_and_shared():
    inputs = keras.Input((6, 6, 2))
    images = keras.Input((6, 6, 2))
    hidden = layers.Conv2D(3, 3, name="conv")(images)
    frozen = layers.BatchNormalization(name="frozen", trainable=False)(hidden)
    shared = layers.Dense(3, name="hidden")
    inner = keras.Model(images, shared(shared(layers.ReLU(name="relu")(frozen))), name="inner")
    joined = layers.Add(name="add")([inner(inputs), inner(layers.ReLU(name="relu")(inputs))])
    pooled = layers.GlobalAveragePooling2D(name="pooled")(joined)
    return keras.Model(inputs, layers.Dense(2, name="outputs")(pooled))


def _recurrent_and_opaque():
    inputs = keras.Input((6, 6, 2))
    series = layers.Reshape((6, 12), name="series")(inputs)
    hidden = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="hidden")(series)
    hidden = layers.MultiHeadAttention(2, 2, name="attention")(hidden, hidden) + hidden
    hidden = layers.GRU(3, name="gru")(Gate(name="gate")(hidden))
    return keras.Model(inputs, layers.Dense(2, name="outputs")(hidden))


STUDENTS = {
    "plain": lambda: keras.Sequential(_plain()),
    "partly frozen": lambda: keras.Sequential(_partly_frozen()),
    "nested and shared": _nested_and_shared,
    "recurrent and opaque": _recurrent_and_opaque,
}
IMAGES = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")


def _student(name):
    keras.utils.set_random_seed(3)
    student = STUDENTS[name]()
    generator = np.random.default_rng(0)
    for weight in student.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return student


def _train(student):
    student.compile(tf_keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    callbacks = student.training_callbacks() if hasattr(student, "training_callbacks") else []
    student.fit(IMAGES, np.ones((8, 2)), batch_size=4, epochs=3, verbose=0, callbacks=callbacks)


def _weights(model):
    """By the names of the layers, without what wraps them; in the order of `get_weights`."""
    found = {}
    for layer in model.layers:
        inner = getattr(layer, "layer", layer) if "Prune" in type(layer).__name__ else layer
        inner = getattr(inner, "keras_layer", inner)
        name = layer.name.removeprefix("prune_low_magnitude_")
        if inner.weights:
            found[name] = inner.get_weights()
    return found


def _assert_same_weights(expected, received):
    assert expected.keys() == received.keys()
    for name, values in expected.items():
        for one, other in zip(values, received[name], strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", STUDENTS)
def test_untrained_weights_come_back_bit_for_bit(name):
    student = _student(name)
    stripped = strip(to_tf_keras(student))
    _assert_same_weights(_named_weights(student), _named_weights(stripped))
    np.testing.assert_allclose(student(IMAGES), stripped(IMAGES), rtol=1e-6, atol=1e-6)


def _named_weights(model):
    """Also those of nested models, by the names that flattening leaves them."""
    graph = read(model)
    names = graph.names()
    weights = {names[id(x)]: getattr(x, "get_weights", list)() for x in graph.layers()}
    return {name: values for name, values in weights.items() if values}


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("name", "pruned"),
    [
        *((name, []) for name in STUDENTS),
        ("plain", ["hidden"]),
        ("partly frozen", ["hidden", "outputs"]),
        ("recurrent and opaque", ["outputs"]),
        ("nested and shared", ["hidden"]),
    ],
)
def test_trained_weights_come_back_bit_for_bit(name, pruned):
    student = _student(name)
    before = _named_weights(student)
    frozen = {
        layer.name: layer.get_weights()
        for layer in read(student).layers()
        if layer.name in before and not layer.trainable
    }
    twin = prune(student, 0.5, layers=pruned) if pruned else to_tf_keras(student)
    _train(twin)
    stripped = strip(twin)

    _assert_same_weights(_weights(twin), _named_weights(stripped))
    np.testing.assert_allclose(twin(IMAGES), stripped(IMAGES), rtol=1e-5, atol=1e-6)
    after = _named_weights(stripped)
    _assert_same_weights(frozen, {layer: after[layer] for layer in frozen})
    for layer, values in after.items():
        trained = any(np.any(a != b) for a, b in zip(before[layer], values, strict=True))
        assert trained == (layer not in frozen)
        zeros, zeros_before = (np.mean(value[0] == 0) for value in (values, before[layer]))
        if layer in pruned:
            assert zeros == pytest.approx(0.5, abs=0.1)
        else:
            assert zeros <= zeros_before
    # What came back is a student like any other.
    again = strip(to_tf_keras(stripped))
    _assert_same_weights(after, _named_weights(again))
    assert [w.trainable for w in again.weights] == [w.trainable for w in stripped.weights]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "partly frozen", "recurrent and opaque"])
def test_trained_weights_fit_into_the_student_that_was_given(name):
    student = _student(name)
    twin = to_tf_keras(student)
    _train(twin)
    stripped = strip(twin)
    student.set_weights(stripped.get_weights())
    np.testing.assert_allclose(student(IMAGES), stripped(IMAGES), rtol=1e-6, atol=1e-6)
