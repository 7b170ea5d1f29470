"""Correlations between channels."""

import numpy as np
import pytest

from keras_kd.losses import InterChannelCorrelation


def test_a_larger_batch_of_the_same_examples_has_a_smaller_loss():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype("float32")
    loss = InterChannelCorrelation()
    value = float(loss.compute_loss(teacher, student))
    twice = float(loss.compute_loss(np.tile(teacher, (2, 1, 1, 1)), np.tile(student, (2, 1, 1, 1))))
    assert twice == pytest.approx(value / 2, rel=1e-5)


def test_the_order_of_the_positions_does_not_matter():
    teacher = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    value = InterChannelCorrelation().compute_loss(teacher, teacher[:, ::-1])
    assert float(value) == pytest.approx(0.0, abs=1e-10)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match=r"features of shape \(None, 4, 5\) from the student"):
        InterChannelCorrelation().check_shapes(None, (None, 9, 5), (None, 4, 3))
