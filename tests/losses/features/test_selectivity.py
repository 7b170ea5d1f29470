"""Neuron selectivity."""

import numpy as np
import pytest

from keras_kd.losses import NeuronSelectivityTransfer


def test_order_number_and_scale_of_channels_do_not_matter():
    teacher = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    student = np.concatenate([5.0 * teacher[..., ::-1], teacher], axis=-1)
    value = NeuronSelectivityTransfer().compute_loss(teacher, student)
    assert float(value) == pytest.approx(0.0, abs=1e-6)
