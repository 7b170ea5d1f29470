"""Files of students, and what they need."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.devices import Device
from keras_kd.search.measuring import Maker, with_distinct_values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "needs_examples"),
    [([], False), ([layers.LayerNormalization], True)],
)
def test_layers_that_stay_in_float_need_examples(hidden, needs_examples):
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(4), *(layer() for layer in hidden)]
    student = keras.Sequential([keras.Input((4, 3)), *hidden, layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(40, 4, 3)).astype("float32")
    maker = Maker(Device(flash="1 MB", target="android"), x)
    aware = maker.aware(student, 20)
    assert not isinstance(aware, keras.Model)
    _, with_examples = maker.file(aware, 20)
    assert with_examples is needs_examples


def concatenating():
    image = keras.Input((8, 8, 1))
    first = layers.Conv2D(2, 3, padding="same", activation="relu")(image)
    deeper = layers.Conv2D(2, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
    both = layers.Concatenate()([layers.UpSampling2D()(deeper), first])
    return keras.Model(image, layers.Conv2D(2, 1)(both))


@pytest.mark.slow
def test_a_map_that_is_concatenated_is_measured_with_a_range_of_its_own():
    keras.utils.set_random_seed(0)
    student = concatenating()
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    maker = Maker(Device(flash="1 MB", target="android"), x)
    before = maker.cost_of_untrained(student, 0)
    aware = maker.aware(student, 32)
    equal, _ = maker.file(aware, 32)
    # One for the input and one for the smaller map: the range of the whole is that of the larger
    # one, until training moves them apart.
    assert equal.operators["QUANTIZE"] == 2
    aware.compile("sgd", "mse")
    aware.fit(x[32:] * 3, np.zeros((32, 8, 8, 2)), batch_size=4, verbose=0)
    trained, _ = maker.file(aware, 32)
    assert trained.operators["QUANTIZE"] == 3
    assert before.bytes == trained.size > equal.size


def test_distinct_values_differ_and_stay_near():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(3)]
    )
    copy = with_distinct_values(model, 0)
    for before, after in zip(model.get_weights(), copy.get_weights(), strict=True):
        assert before.shape == after.shape
        assert len(np.unique(after)) == after.size
        assert np.abs(after - before).max() < 0.2
    assert (copy.layers[-2].moving_variance.numpy() > 0).all()


def test_what_does_not_train_stays_as_it_is():
    scaling = layers.Normalization()
    scaling.adapt(np.array([[-1.0, -1.0], [3.0, 5.0]], "float32"))
    copy = with_distinct_values(keras.Sequential([keras.Input((2,)), scaling, layers.Dense(1)]), 0)
    scaled = next(layer for layer in copy.layers if isinstance(layer, layers.Normalization))
    # Mean 1, 2 and variance 4, 9.
    np.testing.assert_allclose(np.asarray(scaled(np.array([[3.0, 5.0]]))), [[1.0, 1.0]], atol=1e-6)
