import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.distillation import FeatureDistillation

import keras_kd
from keras_kd.teachers.folded import Folded


def used(model):
    """The model with the statistics of one that was trained."""
    generator = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.weights])
    return model


def network(inputs=None):
    inputs = keras.Input((8, 8, 2)) if inputs is None else inputs
    hidden = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inputs)
    hidden = layers.ReLU()(layers.BatchNormalization(name="normalized")(hidden))
    hidden = layers.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False, name="deep")(hidden)
    hidden = layers.BatchNormalization(scale=False)(hidden)
    hidden = layers.Conv2D(3, 1, dilation_rate=2, name="last")(hidden)
    hidden = layers.BatchNormalization(center=False)(hidden)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(hidden)))


@pytest.fixture
def model():
    return used(network())


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(6, 8, 8, 2)).astype("float32")


def assert_same(teacher, model, x):
    np.testing.assert_allclose(teacher(x, None).outputs, model(x, training=False), atol=1e-5)


def test_a_folded_teacher_says_the_same(model, x):
    teacher = Folded(model)
    assert teacher.folded_layer_names == ["first", "deep", "last"]
    assert_same(teacher, model, x)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_step_multiplies_kernels_and_not_features(model, x, jit_compile):
    teacher = Folded(model)
    ask = tf.function(lambda x: teacher(x, None).outputs, jit_compile=jit_compile)
    np.testing.assert_allclose(ask(x), model(x, training=False), atol=1e-5)
    operations = ask.get_concrete_function(x).graph.get_operations()
    multiplied = [op.outputs[0].shape for op in operations if op.type == "Mul"]
    assert multiplied
    assert all(shape.rank == 1 or shape[0] < len(x) for shape in multiplied)


def test_the_model_is_as_it_was(model, x):
    before = model(x, training=True)
    outputs = {layer.name: layer.output for layer in model.layers}
    Folded(model)(x, None)
    assert not any("call" in vars(layer) for layer in model.layers)
    assert all(outputs[layer.name] is layer.output for layer in model.layers)
    np.testing.assert_array_equal(model(x, training=True), before)


def test_a_model_that_fails_is_as_it_was(model):
    with pytest.raises(ValueError, match="incompatible"):
        Folded(model)(np.ones((1, 8, 8, 7), "float32"), None)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_weights_that_change_later_count(model, x):
    teacher = Folded(model)
    teacher(x, None)
    model.set_weights([weight * 0.5 for weight in model.get_weights()])
    assert_same(teacher, model, x)


def test_a_loss_reads_what_the_layers_say_in_the_model(model, x):
    teacher = Folded(model)
    names = ["first", "normalized", "deep"]
    teacher.tap(names)
    assert teacher.folded_layer_names == ["last"]
    said = teacher(x, None)
    expected = keras.Model(model.inputs, [model.get_layer(name).output for name in names])(x)
    for name, features in zip(names, expected, strict=True):
        np.testing.assert_allclose(said.features[name], features, atol=1e-5)
    teacher.tap(["normalized"])
    assert teacher.folded_layer_names == ["first", "deep", "last"]
    np.testing.assert_allclose(teacher(x, None).features["normalized"], expected[1], atol=1e-5)


def test_nested_models_are_folded(x):
    inputs = keras.Input((8, 8, 2))
    inner = network()
    model = used(keras.Model(inputs, layers.Dense(3)(inner(inputs))))
    teacher = Folded(model)
    assert teacher.folded_layer_names == ["first", "deep", "last"]
    assert_same(teacher, model, x)


def test_a_sequential_model_is_folded(x):
    model = used(
        keras.Sequential(
            [keras.Input((8, 8, 2)), layers.Conv2D(3, 3), layers.BatchNormalization(axis=3)]
        )
    )
    assert len(Folded(model).folded_layer_names) == 1
    assert_same(Folded(model), model, x)


class Doubling(layers.Conv2D):
    def call(self, inputs):
        return 2 * super().call(inputs)


def read_twice(inputs):
    hidden = layers.Conv2D(3, 3)(inputs)
    return layers.Add()([hidden, layers.BatchNormalization()(hidden)])


def put_out(inputs):
    hidden = layers.Conv2D(3, 3)(inputs)
    return [hidden, layers.BatchNormalization()(hidden)]


def called_twice(inputs):
    layer = layers.Conv2D(2, 3, padding="same")
    return layers.BatchNormalization()(layer(layer(inputs)))


def followed_by(convolution, **kwargs):
    return lambda inputs: layers.BatchNormalization(**kwargs)(convolution(inputs))


class Own(keras.Model):
    def call(self, inputs, training=None):
        return self.get_layer("first")(inputs)


def test_a_subclassed_model_is_left_alone(x):
    graph = network()
    model = used(Own(graph.inputs, graph.outputs))
    teacher = Folded(model)
    assert teacher.folded_layer_names == []
    assert_same(teacher, model, x)


@pytest.mark.parametrize(
    "build",
    [
        read_twice,
        put_out,
        called_twice,
        followed_by(layers.Conv2D(3, 3, activation="relu")),
        followed_by(layers.Conv2D(3, 3), axis=1),
        followed_by(Doubling(3, 3)),
        followed_by(layers.Conv2D(3, 3, dtype="mixed_bfloat16")),
        # A kernel with more numbers than its outputs for a few examples.
        followed_by(layers.Conv2D(50, 7)),
    ],
)
def test_what_would_be_another_function_or_not_pay_is_left_alone(build, x):
    inputs = keras.Input((8, 8, 2))
    model = used(keras.Model(inputs, build(inputs)))
    teacher = Folded(model)
    expected = model(x, training=False)
    assert teacher.folded_layer_names == []
    for got, wanted in zip(
        keras.tree.flatten(teacher(x, None).outputs), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_a_distiller_with_a_folded_teacher_is_saved_and_goes_on(model, x, tmp_path):
    student = network()
    loss = FeatureDistillation(teacher_layer_name="normalized", student_layer_name="normalized")
    distiller = keras_kd.Distiller(Folded(model), student, loss, student_loss_weight=0)
    assert distiller.teacher is model
    distiller.compile("sgd")
    distiller.fit(x, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    expected = distiller.evaluate(x, verbose=0, return_dict=True)
    assert loaded.evaluate(x, verbose=0, return_dict=True) == pytest.approx(expected)
