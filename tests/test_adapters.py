"""What stands between features of different shapes, and what a loss learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.adapters import Adapter, Bridge
from keras_kd.losses import AttentionTransfer, Hint, SoftTargets, VariationalInformation


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ((2, 5), (7,)),
        ((2, 6, 4), (6, 3)),
        ((2, 6, 4), (3, 4)),
        ((2, 8, 8, 4), (4, 4, 6)),
        ((2, 4, 4, 4), (8, 8, 4)),
        ((2, 7, 5, 4), (3, 9, 2)),
        ((2, 4, 4, 4, 3), (2, 2, 2, 5)),
        ((2, 4, 4, 6), (3,)),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_every_shape_is_reached(given, shape, compiled):
    adapter = Adapter(shape)
    adapter.build(given)
    call = tf.function(adapter, jit_compile=True) if compiled else adapter
    assert call(features(*given)).shape == (2, *shape)
    assert adapter.compute_output_shape((None, *given[1:])) == (None, *shape)


def test_positions_are_averaged_to_fewer():
    x = features(2, 4, 6, 3)
    expected = x.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(Adapter((2, 3, 3))(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [4, 7, 9])
def test_positions_are_interpolated_to_more(size):
    x = features(2, 4, 4, 3)
    expected = tf.image.resize(x, (size, size), method="bilinear")
    np.testing.assert_allclose(Adapter((size, size, 3))(x), expected, rtol=1e-5, atol=1e-6)


def test_channels_are_mixed_as_by_a_1x1_convolution():
    x, adapter = features(2, 4, 4, 3), Adapter((4, 4, 5))
    adapted = adapter(x)
    kernel = adapter.trainable_weights[0].numpy()
    np.testing.assert_allclose(adapted, tf.nn.conv2d(x, kernel[None, None], 1, "SAME"), rtol=1e-4)
    assert len(adapter.trainable_weights) == 1


def test_an_unknown_length_stays():
    adapter = Adapter((None, 5))
    adapter.build((None, None, 3))
    assert adapter(features(2, 9, 3)).shape == (2, 9, 5)
    assert adapter.compute_output_shape((None, None, 3)) == (None, None, 5)


def connected(loss, teacher_shape, student_shape):
    bridge = Bridge(loss, dtype="float32")
    bridge.connect(keras.KerasTensor(teacher_shape), keras.KerasTensor(student_shape))
    return bridge


def test_nothing_is_put_between_features_that_fit():
    bridge = connected(Hint("a", "b"), (None, 4, 4, 6), (None, 4, 4, 6))
    assert bridge.adapters == [None]
    x = features(2, 4, 4, 6)
    assert bridge.adapt(x) is x
    assert bridge.weights == []


def test_an_adapter_is_made_for_features_that_do_not_fit():
    bridge = connected(Hint("a", "b"), (None, 4, 4, 6), (None, 8, 8, 3))
    assert bridge.adapt(features(2, 8, 8, 3)).shape == (2, 4, 4, 6)
    assert [tuple(weight.shape) for weight in bridge.trainable_weights] == [(3, 6)]


def test_none_is_made_for_a_loss_that_needs_none():
    assert connected(AttentionTransfer("a", "b"), (None, 4, 4, 6), (None, 8, 8, 3)).weights == []


def test_a_forbidden_adapter():
    with pytest.raises(ValueError, match=r"4, 6\) from the teacher and .*4, 3\).*for Hint.*auto"):
        connected(Hint("a", "b", adapter=None), (None, 4, 4, 6), (None, 4, 4, 3))


def test_an_adapter_of_ones_own():
    own = keras.Sequential([keras.layers.Dense(9, "relu"), keras.layers.Dense(6)])
    bridge = connected(Hint("a", "b", adapter=own), (None, 4, 4, 6), (None, 4, 4, 3))
    x = features(2, 4, 4, 3)
    np.testing.assert_array_equal(bridge.adapt(x), own(x))
    assert len(bridge.trainable_weights) == 4


def test_an_adapter_of_ones_own_that_does_not_fit():
    own = keras.layers.Dense(5)
    with pytest.raises(ValueError, match=r"6\) from the teacher and .*5\) from the student"):
        connected(Hint("a", "b", adapter=own), (None, 4, 4, 6), (None, 4, 4, 3))


def test_one_adapter_for_two_layers_is_one_too_few():
    loss = Hint(["a", "b"], ["a", "b"], adapter=keras.layers.Dense(6))
    bridge = Bridge(loss)
    tensors = [keras.KerasTensor((None, 4)), keras.KerasTensor((None, 5))]
    with pytest.raises(
        ValueError, match=r"1 adapters for 2 layers.*\['a', 'b'\].*a list of layers"
    ):
        bridge.connect(tensors, tensors)


def test_features_that_no_adapter_can_reach():
    with pytest.raises(ValueError, match=r"4, 4, 6\) from the teacher and \(None, 3\)"):
        connected(Hint("a", "b"), (None, 4, 4, 6), (None, 3))


def test_what_a_loss_learns_belongs_to_the_bridge():
    loss = VariationalInformation("a", "b")
    bridge = connected(loss, (None, 4, 4, 6), (None, 4, 4, 3))
    assert len(bridge.trainable_weights) == 2
    assert any(weight is loss.log_scale for weight in bridge.trainable_weights)


def test_outputs_pass_as_they_are():
    bridge = connected(SoftTargets(), (None, 3), (None, 3))
    assert bridge.weights == []
    with pytest.raises(ValueError, match="the same number of classes"):
        connected(SoftTargets(), (None, 3), (None, 4))


@pytest.mark.parametrize("structure", [dict, list, tuple])
def test_outputs_of_several_kinds_are_adapted_each(structure):
    def tensors(*shapes):
        made = [keras.KerasTensor(shape) for shape in shapes]
        return dict(zip("ba", made, strict=True)) if structure is dict else structure(made)

    bridge = Bridge(Hint(), dtype="float32")
    bridge.connect(tensors((None, 4), (None, 6)), tensors((None, 3), (None, 6)))
    parts = [features(2, 3), features(2, 6)]
    given = dict(zip("ba", parts, strict=True)) if structure is dict else structure(parts)
    adapted = bridge.adapt(given)
    shapes = [part.shape for part in (adapted.values() if structure is dict else adapted)]
    assert shapes == [(2, 4), (2, 6)]
    assert len(bridge.trainable_weights) == 1
