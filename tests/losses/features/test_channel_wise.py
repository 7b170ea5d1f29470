"""Channel-wise distillation: masks, and logits behind the outputs of a segmenter."""

import keras
import numpy as np
import pytest

from keras_kd.losses import ChannelWiseDistillation


def test_masked_positions_are_in_no_distribution():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 6, 4)).astype("float32")
    mask = np.ones((3, 6), bool)
    mask[:, 4:] = False
    loss = ChannelWiseDistillation(temperature=2.0)
    expected = float(loss.compute_loss(teacher[:, :4], student[:, :4]))
    spoiled = np.where(mask[..., None], student, 50.0)
    value = float(loss.compute_loss(teacher, spoiled, mask=mask))
    assert value == pytest.approx(expected, rel=1e-5)


def test_outputs_are_compared_by_their_logits():
    teacher, student = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 3)).astype("float32")
    loss = ChannelWiseDistillation()
    softmax = keras.layers.Softmax()
    value = float(loss.compute_loss(softmax(teacher), softmax(student)))
    assert value == pytest.approx(float(loss.compute_loss(teacher, student)), rel=1e-5)


def test_vectors_have_no_positions():
    with pytest.raises(ValueError, match="vectors without positions"):
        ChannelWiseDistillation().validate_outputs(np.zeros((2, 3)), np.zeros((2, 3)))
