"""One forward pass for a model's outputs and those of its named layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.compression import PolynomialSchedule
from keras_kd.taps import Tap, find_layer


@pytest.fixture
def x(examples):
    return examples[0]


def test_outputs_without_features(student, x):
    tapped = Tap(student)(x, training=False)
    np.testing.assert_array_equal(tapped.outputs, student(x))
    assert tapped.features == {}


def test_features_by_name_beside_the_outputs(student, x):
    tapped = Tap(student, ["hidden", "outputs", "hidden"])(x, training=False)
    hidden = student.get_layer("hidden")(x)
    np.testing.assert_allclose(tapped.features["hidden"], hidden, rtol=1e-6)
    np.testing.assert_array_equal(tapped.features["outputs"], tapped.outputs)
    assert set(tapped.features) == {"hidden", "outputs"}


@pytest.mark.parametrize("structure", [dict, list])
def test_outputs_keep_their_structure(structure, x):
    inputs = keras.Input((5,))
    first, second = keras.layers.Dense(2, name="first")(inputs), keras.layers.Dense(3)(inputs)
    outputs = {"a": first, "b": second} if structure is dict else [first, second]
    model = keras.Model(inputs, outputs)
    tapped = Tap(model, ["first"])(x, training=False)
    keras.tree.assert_same_structure(tapped.outputs, model(x))
    assert tapped.features["first"].shape == (20, 2)


def test_inputs_keep_their_structure(x):
    inputs = {"left": keras.Input((2,)), "right": keras.Input((3,))}
    merged = keras.layers.Concatenate(name="merged")(list(inputs.values()))
    tap = Tap(keras.Model(inputs, keras.layers.Dense(2)(merged)), ["merged"])
    tapped = tap({"left": x[:, :2], "right": x[:, 2:]}, training=False)
    np.testing.assert_array_equal(tapped.features["merged"], x)


def test_training_reaches_the_layers(dense_model, x):
    model = dense_model(batch_normalization=True)
    mean = model.get_layer("normalization").moving_mean
    tap = Tap(model, ["hidden"])
    tap(x, training=False)
    assert not mean.numpy().any()
    tap(x, training=True)
    assert mean.numpy().any()


def test_masks_survive():
    inputs = keras.Input((4,), dtype="int32")
    hidden = keras.layers.Embedding(6, 3, mask_zero=True, name="embedded")(inputs)
    tap = Tap(keras.Model(inputs, keras.layers.Dense(2)(hidden)), ["embedded"])
    outputs = tap(np.array([[1, 2, 0, 0]]), training=False).outputs
    np.testing.assert_array_equal(outputs._keras_mask, [[True, True, False, False]])


def test_an_unknown_layer_is_told_with_the_known_ones(student):
    with pytest.raises(
        ValueError, match=r"Received layer name 'absent' for model 'student'.*hidden, outputs"
    ):
        Tap(student, ["absent"])


def test_a_subclassed_model_has_layers_to_read(x):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(4, name="first")
            self.second = keras.layers.Dense(2, name="second")

        def call(self, inputs):
            return self.second(self.first(inputs))

    model = Subclassed()
    tap = Tap(model, ["first"])
    assert tap.shapes() is None
    tapped = tap(x, training=False)
    np.testing.assert_array_equal(tapped.features["first"], model.first(x))
    shapes = tap.shapes()
    assert tuple(shapes.features["first"].shape) == (None, 4)
    assert shapes.outputs.shape[-1] == 2


def nested_model():
    block = [keras.Input((4,)), keras.layers.Dense(3, "tanh", name="block3")]
    backbone = keras.Sequential([*block, keras.layers.Dense(2)], name="backbone")
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), backbone], name="inner")
    return keras.Sequential([keras.Input((5,)), inner, keras.layers.Dense(2)], name="outer")


@pytest.mark.parametrize("compiled", [False, True])
def test_layers_of_nested_models_by_their_path(x, compiled):
    model = nested_model()
    tap = Tap(model, ["inner/backbone/block3", "inner"])
    run = tf.function(tap, jit_compile=True) if compiled else tap
    tapped = run(x, training=False)
    backbone = model.get_layer("inner").get_layer("backbone")
    before = model.get_layer("inner").layers[0](x)
    # XLA computes tanh in another way, whose error does not shrink with the value.
    expected = backbone.get_layer("block3")(before)
    np.testing.assert_allclose(
        tapped.features["inner/backbone/block3"], expected, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(tapped.outputs, model(x), rtol=1e-5, atol=1e-6)
    assert tuple(tap.shapes().features["inner/backbone/block3"].shape) == (None, 3)


def test_the_models_are_as_before_after_a_pass(x):
    model = nested_model()
    layers = list(model._flatten_layers())
    before = [(len(layer._inbound_nodes), set(vars(layer))) for layer in layers]
    Tap(model, ["inner/backbone/block3"])(x, training=False)
    assert [(len(layer._inbound_nodes), set(vars(layer))) for layer in layers] == before


def test_a_path_finds_what_became_of_a_nested_layer_in_a_flattened_model(x):
    flat = keras_kd.compression.to_tf_keras(nested_model())
    assert find_layer(flat, "inner/backbone/block3").name.endswith("block3")
    pruned = keras_kd.compression.prune(nested_model(), schedule=PolynomialSchedule(end_step=2))
    layer = find_layer(pruned, "inner/backbone/block3")
    assert layer.name.startswith("prune_low_magnitude")
    assert Tap(pruned, ["inner/backbone/block3"])(x, training=False).features


class Block(keras.layers.Layer):
    """Layers inside a layer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.ff = keras.layers.Dense(3, name="ff")
        self.rest = [keras.layers.Dense(4, name="out")]

    def call(self, inputs):
        return self.rest[0](self.ff(inputs))


def recurrent_model():
    inputs = keras.Input((None, 5))
    hidden = Block(name="block")(inputs)
    recurrent = keras.layers.GRU(2, return_sequences=True, name="rnn")
    hidden = keras.layers.Bidirectional(recurrent, name="bi")(hidden)
    inner = keras.Sequential([keras.Input((None, 4)), Block(name="deep")], name="inner")
    hidden = keras.layers.TimeDistributed(keras.layers.Dense(4, name="dense"), name="td")(hidden)
    return keras.Model(inputs, inner(hidden))


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras", "pruned"])
def test_layers_inside_layers_tell_their_shapes(x, flavour):
    model = recurrent_model()
    names = {"block/ff": 3, "bi/forward_rnn": 2, "inner/deep/ff": 3, "inner/deep": 4}
    if flavour == "tf_keras":
        model = keras_kd.compression.to_tf_keras(model)
    if flavour == "pruned":
        model = keras_kd.compression.prune(model, schedule=PolynomialSchedule(end_step=2))
    tap = Tap(model, list(names))
    shapes = tap.shapes()
    assert {name: tuple(one.shape) for name, one in shapes.features.items()} == {
        name: (None, None, units) for name, units in names.items()
    }
    tapped = tap(x[:, None].repeat(2, axis=1), training=False)
    assert {name: one.shape[-1] for name, one in tapped.features.items()} == names


def test_a_layer_of_several_models_has_the_shape_of_this_one(x):
    shared = keras.layers.Dense(5, name="shared")
    first, second = keras.Input((7, 5)), keras.Input((5,))
    shared(first)
    model = keras.Model(second, shared(second))
    assert tuple(Tap(model, ["shared"]).shapes().features["shared"].shape) == (None, 5)


@pytest.mark.parametrize("name", ["td/dense", "bi/forward_rnn/gru_cell"])
def test_a_layer_in_a_loop_is_refused(name):
    model = recurrent_model()
    with pytest.raises(
        ValueError, match=rf"{name}'.*runs in a loop.*name '{name.rpartition('/')[0]}'"
    ):
        Tap(model, [name])


def test_a_mistyped_inner_layer_is_told_with_its_neighbours():
    with pytest.raises(ValueError, match=r"'block/gg'.*block/ff, block/out"):
        Tap(recurrent_model(), ["block/gg"])


def test_a_layer_that_is_called_twice_has_no_single_output(x):
    shared, inputs = keras.layers.Dense(5, name="shared"), keras.Input((5,))
    model = keras.Model(inputs, shared(shared(inputs)))
    with pytest.raises(ValueError, match=r"layer 'shared' .*called 2 times.*name a layer that"):
        Tap(model, ["shared"])(x, training=False)


def test_a_wrapped_layer_is_found_by_its_own_name():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(2, name="quant_prune_low_magnitude_first"),
            keras.layers.Dense(2, name="second"),
        ]
    )
    assert find_layer(model, "first") is model.layers[0]
    assert find_layer(model, "second") is model.layers[1]


def test_a_layers_own_name_comes_before_a_wrapped_one():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(2, name="quant_a"), keras.layers.Dense(2, name="a")]
    )
    assert find_layer(model, "a") is model.layers[1]


def test_a_mistyped_model_is_not_looked_past():
    with pytest.raises(ValueError, match=r"'backbon/block3'.*inner/backbone/block3"):
        find_layer(nested_model(), "backbon/block3")
