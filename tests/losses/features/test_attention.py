"""Attention transfer."""

import numpy as np
import pytest

from keras_kd.losses import AttentionTransfer
from keras_kd.losses.features.attention import attention


def test_attention_is_the_energy_of_the_channels_with_norm_1():
    features = np.array([[[3.0, -3.0], [0.0, 0.0], [2.0, np.sqrt(20.0)]]])
    np.testing.assert_allclose(attention(features), [[0.6, 0.0, 0.8]], rtol=1e-6)


def test_the_number_of_channels_and_the_scale_do_not_matter():
    teacher = np.random.default_rng(0).normal(size=(2, 3, 3, 1)).astype("float32")
    student = 7.0 * np.repeat(teacher, 5, axis=-1)
    assert float(AttentionTransfer().compute_loss(teacher, student)) == pytest.approx(0, abs=1e-12)


def test_negative_values_count_as_their_size_for_odd_powers_too():
    teacher = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    value = AttentionTransfer(power=3).compute_loss(teacher, -teacher)
    assert float(value) == pytest.approx(0.0, abs=1e-12)


def test_a_power_below_1_is_refused():
    with pytest.raises(ValueError, match=r"power=0.5.*at least 1.*such as 2"):
        AttentionTransfer(power=0.5)
    with pytest.raises(TypeError, match=r"power='two'.*a finite number"):
        AttentionTransfer(power="two")
