"""The share of examples on which two models agree."""

import keras
import numpy as np
import pytest

from keras_kd.metrics import Agreement


def test_equal_choices_are_counted():
    metric = Agreement()
    metric.update_state([[0.1, 2.0], [3.0, 1.0], [5.0, 6.0]], [[0.2, 0.8], [0.4, 0.6], [0.0, 1.0]])
    assert float(metric.result()) == pytest.approx(2 / 3)
    metric.update_state([[1.0, 0.0]], [[0.0, 1.0]])
    assert float(metric.result()) == pytest.approx(2 / 4)


def test_one_logit_chooses_by_its_sign():
    metric = Agreement()
    metric.update_state([[-1.0], [2.0], [0.5], [3.0]], [[-0.1], [0.1], [-4.0], [9.0]])
    assert float(metric.result()) == pytest.approx(3 / 4)


def test_positions_count_each_and_weights_weigh_them():
    first = np.random.default_rng(0).normal(size=(2, 3, 4))
    second = first.copy()
    second[0, 1] = -second[0, 1]
    metric = Agreement("same")
    metric.update_state(first, second)
    assert float(metric.result()) == pytest.approx(5 / 6)
    metric.reset_state()
    metric.update_state(first, second, sample_weight=[[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    assert float(metric.result()) == pytest.approx(1.0)


def test_it_is_saved_by_its_name():
    metric = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Agreement("same"))
    )
    assert (type(metric), metric.name) == (Agreement, "same")
