"""Files of students, and what they need."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.devices import Device
from keras_kd.search.measuring import Maker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "needs_examples"),
    [([layers.Dense(4)], False), ([layers.Dense(4), layers.LayerNormalization()], True)],
)
def test_layers_that_stay_in_float_need_examples(hidden, needs_examples):
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((4, 3)), *hidden, layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(40, 4, 3)).astype("float32")
    maker = Maker(Device(flash="1 MB", target="android"), x)
    aware = maker.aware(student, 20)
    assert not isinstance(aware, keras.Model)
    _, with_examples = maker.file(aware, 20)
    assert with_examples is needs_examples
