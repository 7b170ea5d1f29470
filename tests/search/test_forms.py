"""Smaller forms of a teacher."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import remove_filters
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.pruning.channels import channels_of
from keras_kd.search import Form
from keras_kd.search.forms import Ladder, fixed_layers


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ],
        name="teacher",
    )


def filters(model):
    return [layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)]


def test_the_whole_form_is_the_teacher(teacher):
    x = np.random.default_rng(0).uniform(size=(5, 16, 16, 1)).astype("float32")
    student = Form().of(teacher)
    np.testing.assert_allclose(
        student.predict(x, verbose=0), teacher.predict(x, verbose=0), atol=1e-6
    )
    assert student is not teacher


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_a_form_of_a_teacher_that_a_distiller_froze_can_be_trained(teacher, width):
    frozen = keras.models.clone_model(teacher)
    frozen.trainable = False
    assert len(Form(width).of(frozen).trainable_weights) == len(teacher.trainable_weights)
    assert not frozen.trainable_weights


def test_an_even_form_is_what_remove_filters_makes(teacher):
    student = Form(width=0.5).of(teacher)
    expected = remove_filters(teacher, 0.5)
    for own, other in zip(student.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)


def test_a_tilted_form_is_wider_at_the_end(teacher):
    assert filters(Form(width=0.5, tilt=4).of(teacher)) == [2, 6, 12]
    assert filters(Form(width=0.5, tilt=0.25).of(teacher)) == [8, 6, 3]


def test_no_layer_of_a_level_form_is_wider_than_the_median():
    model = keras.Sequential([keras.Input((3,)), *map(layers.Dense, (16, 32, 128, 2))])
    student = Form(0.5, level=True).of(model)
    assert [layer.units for layer in student.layers[1:]] == [8, 16, 16, 2]
    assert any(arm.level for arm in Ladder(model).arms)
    even = keras.Sequential([keras.Input((3,)), *map(layers.Dense, (8, 8, 2))])
    assert not any(arm.level for arm in Ladder(even).arms)


def test_a_repeated_block_is_left_out(teacher):
    assert filters(Form(fewer_blocks=1).of(teacher)) == [8, 12]
    with pytest.raises(ValueError, match="at most 1, the blocks of 'teacher'"):
        Form(fewer_blocks=2).of(teacher)


def test_a_pooled_form_sees_an_average(teacher):
    student = Form(pool=2).of(teacher)
    assert student.input_shape == teacher.input_shape
    assert student.layers[1].output.shape[1:] == (8, 8, 1)
    first, own = (
        next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
        for model in (teacher, student)
    )
    np.testing.assert_array_equal(first.get_weights()[0], own.get_weights()[0])


def test_forms_that_cannot_be_are_refused():
    for options in ({"width": 0}, {"width": 1.1}, {"tilt": 0}, {"pool": 0}, {"fewer_blocks": -1}):
        with pytest.raises(ValueError, match=rf"Received {next(iter(options))}="):
            Form(**options)


def test_arms_begin_with_the_simple_ones(teacher):
    arms = Ladder(teacher).arms
    assert arms[0].tilt == arms[0].pool == 1
    assert arms[0].fewer_blocks == 0
    assert Form() in arms
    assert {arm.tilt for arm in arms} == {1, 3, 1 / 3}
    assert {arm.fewer_blocks for arm in arms} == {0, 1}
    assert {arm.pool for arm in arms} == {1, 2}
    assert {arm.shrunk for arm in arms} == {True, False}
    # It has no pooling layer whose strides a convolution could take over.
    assert {arm.strided for arm in arms} == {False}
    assert len(set(arms)) == len(arms)


def test_a_small_input_is_not_made_smaller():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, activation="relu"), layers.Dense(2)]
    )
    assert Ladder(model).arms == [Form()]


def test_a_model_that_cannot_be_narrowed_names_its_layers():
    model = keras.Sequential([keras.Input((6, 4)), layers.LSTM(3, name="memory"), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"'memory' \(LSTM\).*student=build"):
        _ = Ladder(model).arms


def test_the_layers_that_no_form_makes_narrower_are_known():
    hidden = [layers.LSTM(9, name="memory"), layers.Dense(5, activation="relu")]
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((6, 4)), *hidden, norm, layers.Dense(2)])
    assert fixed_layers(channels_of(graphs.read(model))) == ["'memory' (LSTM)"]


def test_a_subclassed_teacher_wants_a_family():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"the subclassed model 'own'.*; or pass student=build"):
        _ = Ladder(Own(name="own")).arms


@pytest.mark.parametrize("is_adapted", [True, False])
def test_new_weights_are_drawn_from_the_seed_where_layers_train(is_adapted):
    # Of a population of two the mean is 1, 2 and the variance 4, 9.
    scaling = layers.Normalization()
    scaling.adapt(np.array([[-1.0, -1.0], [3.0, 5.0]], "float32"))
    if not is_adapted:
        scaling = layers.Normalization(mean=[1.0, 2.0], variance=[4.0, 9.0])
    hidden = [layers.Dense(6, activation="relu"), layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((2,)), scaling, *hidden, layers.Dense(2)])
    model.layers[2].set_weights([np.full(6, 5.0)] * 4)
    one, same, other = (Form(0.5, seed=seed).of(model) for seed in (1, 1, 2))
    for first, second in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert one.layers[2].units == 3
    assert np.any(one.layers[2].get_weights()[0] != other.layers[2].get_weights()[0])
    np.testing.assert_array_equal(one.layers[3].get_weights()[0], np.ones(3))
    x = np.array([[3.0, 5.0]], "float32")
    np.testing.assert_allclose(np.asarray(one.layers[1](x)), [[1.0, 1.0]], atol=1e-6)


def test_functions_in_layers_stay_in_new_weights():
    double = layers.Lambda(lambda tensor: 2 * tensor)
    hidden = layers.Dense(6, activation="relu")
    model = keras.Sequential([keras.Input((2,)), double, hidden, layers.Dense(2)])
    student = Form(0.5, seed=1).of(model)
    np.testing.assert_array_equal(np.asarray(student.layers[1](np.ones((1, 2)))), [[2.0, 2.0]])
    assert student.layers[2].units == 3


@pytest.mark.parametrize("seed", [None, 1])
def test_dropout_falls_with_the_weights(seed):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(20, "relu"), layers.Dropout(0.4), layers.Dense(4)]
    )
    student = Form(0.5, seed=seed).of(model)
    share = (10 * 6 + 4 * 11) / (20 * 6 + 4 * 21)
    assert student.layers[2].rate == pytest.approx(0.4 * share)
    assert Form().of(model).layers[2].rate == model.layers[1].rate == 0.4
