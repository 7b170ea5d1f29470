"""Smaller maps: strides in place of pooling, and a smaller last map."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.search.maps import with_smaller_maps


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 1), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="one")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="two")(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3, name="out")(x), name="model")


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(size=(5, 16, 16, 1)).astype("float32")


def test_a_convolution_strides_in_place_of_its_pooling(model, x):
    student = with_smaller_maps(model, strided=True)
    assert not any(isinstance(layer, layers.MaxPooling2D) for layer in student.layers)
    # The map behind it is the one in front of the pooling, every second value of it.
    full, small = (
        keras.Model(each.inputs, each.get_layer("norm").output).predict(x, verbose=0)
        for each in (model, student)
    )
    # A stride of 2 on an even size with padding "same" begins at the second value.
    np.testing.assert_allclose(small, full[:, 1::2, 1::2], atol=1e-6)
    for layer in ("one", "norm", "two", "out"):
        for own, other in zip(
            student.get_layer(layer).get_weights(),
            model.get_layer(layer).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(own, other)


def test_a_smaller_last_map_sums_the_kernel_behind_it(model):
    student = with_smaller_maps(model, shrunk=True)
    assert student.get_layer("two").output.shape == (None, 4, 4, 6)
    old = model.get_layer("out").get_weights()[0].reshape(4, 2, 4, 2, 6, 3)
    expected = old.sum((1, 3)).reshape(4 * 4 * 6, 3)
    np.testing.assert_allclose(student.get_layer("out").get_weights()[0], expected, atol=1e-6)


def test_an_odd_map_is_summed_over_the_nearest_positions():
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((7, 2)),
            layers.Conv1D(3, 3, padding="same", name="last"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ]
    )
    student = with_smaller_maps(model, shrunk=True)
    assert student.get_layer("last").output.shape == (None, 4, 3)
    old = model.get_layer("out").get_weights()[0].reshape(7, 3, 2)
    expected = np.stack([old[0:2].sum(0), old[2:4].sum(0), old[4:6].sum(0), old[6]])
    np.testing.assert_allclose(
        student.get_layer("out").get_weights()[0], expected.reshape(12, 2), atol=1e-6
    )


def test_weights_that_begin_anew_are_the_same_each_time():
    image = keras.Input((8, 8, 1))
    flat = [
        layers.Flatten()(layers.MaxPooling2D()(layers.Conv2D(2, 3, padding="same")(image)))
        for _ in range(2)
    ]
    teacher = keras.Model(image, layers.Dense(3, name="out")(layers.Concatenate()(flat)))
    kernels = []
    for seed in (1, 2):
        # As in another process, and after other models.
        keras.utils.set_random_seed(seed)
        # No single Flatten says over which positions the kernel could be summed.
        student = with_smaller_maps(teacher, 2)
        kernels.append(student.get_layer("out").get_weights()[0])
    assert kernels[0].shape == (16, 3)
    assert kernels[0].std() > 0.1
    np.testing.assert_array_equal(*kernels)


def test_an_average_in_front_keeps_the_inputs_shape(model, x):
    student = with_smaller_maps(model, 2)
    assert student.input_shape == model.input_shape
    small = x.reshape(5, 8, 2, 8, 2, 1).mean((2, 4))
    first = student.layers[1]
    np.testing.assert_allclose(np.asarray(first(x)), small, atol=1e-6)


@pytest.mark.parametrize("options", [{"strided": True}, {"shrunk": True}])
def test_a_model_without_such_layers_is_refused(options):
    [name] = options
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    with pytest.raises(ValueError, match=rf"Received {name}=True for .*pass {name}=False"):
        with_smaller_maps(dense, **options)


def test_a_map_that_something_else_reads_keeps_its_pooling():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, padding="same")(inputs)
    y = layers.GlobalAveragePooling2D()(x)
    z = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x))
    model = keras.Model(inputs, layers.Add()([y, z]))
    with pytest.raises(ValueError, match="no convolution has a pooling behind it"):
        with_smaller_maps(model, strided=True)
