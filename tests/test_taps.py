"""One forward pass for a model's outputs and those of its named layers."""

import keras
import numpy as np
import pytest

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


@pytest.mark.parametrize("kind", ["subclassed", "unbuilt"])
def test_a_model_without_a_graph_has_no_layers_to_read(kind):
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    model = Subclassed() if kind == "subclassed" else keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(
        ValueError, match=r"layer names \['hidden'\].*keras.Model\(inputs, outputs\)"
    ):
        Tap(model, ["hidden"])


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
