"""Partial squared distance, and its margin."""

import keras
import numpy as np
import pytest

from keras_kd import _keras
from keras_kd.losses import PartialL2


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (3.0, 1.0, 4.0),
        (3.0, 5.0, 4.0),
        (-0.5, 1.0, 2.25),
        (-0.5, -0.7, 0.0),
        (-9.0, 1.0, 4.0),
        (-9.0, -2.0, 0.0),
    ],
)
def test_what_the_relu_cuts_off_need_not_be_equal(teacher, student, expected):
    value = PartialL2(margin=[-1.0]).compute_loss(np.array([[teacher]]), np.array([[student]]))
    assert float(value) == pytest.approx(expected, rel=1e-5)


def build_layer(gamma, beta, module=keras, **options):
    layer = module.layers.BatchNormalization(**options)
    layer.build((None, len(gamma)))
    for name, values in (("gamma", gamma), ("beta", beta)):
        if getattr(layer, name) is not None:
            getattr(layer, name).assign(values)
    return layer


def test_the_margin_is_the_mean_of_the_negative_values():
    gamma, beta = [1.0, -2.0, 0.5], [0.3, -1.0, 1.0]
    margin = PartialL2.margin_from_batch_normalization(build_layer(gamma, beta))
    draws = np.random.default_rng(0).normal(beta, np.abs(gamma), size=(400_000, 3))
    expected = [column[column < 0].mean() for column in draws.T]
    np.testing.assert_allclose(margin, expected, rtol=0.02)


def test_the_margin_of_channels_that_are_hardly_ever_negative_or_constant():
    layer = build_layer([0.1, 0.0, 0.0], [9.0, -2.0, 2.0])
    margin = PartialL2.margin_from_batch_normalization(layer)
    np.testing.assert_allclose(margin, [-0.3, -2.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}])
def test_the_margin_of_a_layer_without_scale_or_center(options):
    layer = build_layer([1.0, 1.0], [0.0, 0.0], **options)
    margin = PartialL2.margin_from_batch_normalization(layer)
    np.testing.assert_allclose(margin, [-np.sqrt(2 / np.pi)] * 2, rtol=1e-6)


def test_the_margin_of_a_tf_keras_layer():
    ours, theirs = (
        PartialL2.margin_from_batch_normalization(build_layer([1.0, 2.0], [0.5, -0.5], module))
        for module in (keras, _keras.tf_keras())
    )
    assert ours == theirs


def test_the_margin_needs_a_built_batch_normalization():
    with pytest.raises(TypeError, match=r"Dense.*a BatchNormalization layer.*get_layer"):
        PartialL2.margin_from_batch_normalization(keras.layers.Dense(3))
    with pytest.raises(ValueError, match=r"no weights yet.*a built layer"):
        PartialL2.margin_from_batch_normalization(keras.layers.BatchNormalization())


def test_axes_of_one_value_are_left_out_of_the_margin():
    assert PartialL2(margin=np.full((1, 1, 1, 2), -1.5)).margin == [-1.5, -1.5]


@pytest.mark.parametrize("margin", [[], -1.0, [[-1.0], [-2.0]], [np.nan], [-np.inf]])
def test_a_margin_that_is_not_one_number_per_channel_is_refused(margin):
    with pytest.raises(ValueError, match=r"margin.*one finite number per channel.*PartialL2"):
        PartialL2(margin=margin)


@pytest.mark.parametrize("margin", ["low", None, [object()]])
def test_a_margin_must_hold_numbers(margin):
    with pytest.raises((TypeError, ValueError), match=r"margin.*one finite number per channel"):
        PartialL2(margin=margin)


def test_a_margin_of_other_channels_is_refused():
    loss = PartialL2(margin=[-1.0, -2.0])
    message = r"a margin of 2 numbers for features of shape \(\w+, 3\).*each of the 3 channels"
    with pytest.raises(ValueError, match=message):
        loss.check_shapes(None, (None, 3), (None, 3))
    with pytest.raises(ValueError, match=message):
        loss.compute_loss(np.ones((2, 3)), np.ones((2, 3)))
