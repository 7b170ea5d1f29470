import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_kd.compression.quantization import _quantizers as quantizers
from keras_kd.compression.quantization.structure import structure_of


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def rounded(values, bits, axes):
    """Symmetric rounding to 2**bits - 1 steps, in NumPy and float64; the ranges keep `axes`."""
    others = tuple(axis for axis in range(values.ndim) if axis not in axes)
    steps = 2 ** (bits - 1) - 1
    scale = np.abs(values.astype("float64")).max(axis=others, keepdims=True) / steps
    return np.round(values / scale) * scale


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    ("shape", "channel_axes", "kept"),
    [
        ((6, 5), 0, ()),
        ((3, 3, 2, 5), 0, ()),
        ((3, 3, 2, 5), 1, (3,)),
        ((3, 3, 4, 2), 2, (2, 3)),
        ((4, 3, 5), 1, (2,)),
        ((4, 3, 2), 2, (1, 2)),
    ],
)
def test_kernels_are_rounded_in_ranges_of_their_own(bits, shape, channel_axes, kept):
    kernel = normal(*shape)
    quantizer = quantizers.WeightQuantizer(bits, channel_axes)
    variables = quantizer.build(tf.TensorShape(shape), "kernel", tf_keras.layers.Layer())
    received = quantizer(tf.Variable(kernel), True, weights=variables).numpy()
    # Kernels of one dimension come out in two.
    assert received.shape == (1,) * (len(shape) == 3) + shape
    np.testing.assert_allclose(received.reshape(shape), rounded(kernel, bits, kept), atol=1e-5)
    # In inference the range is that of the last step of training.
    again = quantizer(tf.Variable(kernel), False, weights=variables).numpy()
    np.testing.assert_array_equal(again, received)


def test_equal_weights_share_the_mean_of_their_gradients():
    kernel = tf.Variable([[0.5, 0.0, -1.0], [0.5, -1.0, 0.5], [0.0, 0.5, -1.0]])
    structure = structure_of(kernel.numpy())
    upstream = normal(3, 3)
    with tf.GradientTape() as tape:
        held = quantizers.held(kernel, tf.constant(structure))
        loss = tf.reduce_sum(held * upstream)
    np.testing.assert_array_equal(held, kernel)
    expected = np.zeros((3, 3))
    for value in (0.5, -1.0):
        members = kernel.numpy() == value
        expected[members] = upstream.astype("float64")[members].mean()
    np.testing.assert_allclose(tape.gradient(loss, kernel), expected, rtol=1e-6)


def test_a_weight_that_went_astray_is_brought_back():
    kernel = tf.Variable([[0.5, 0.0], [0.5, 0.5], [0.0, 0.5]])
    structure = tf.constant(structure_of(kernel.numpy()))
    kernel.assign_add([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    np.testing.assert_allclose(
        quantizers.held(kernel, structure), [[0.6, 0.0], [0.6, 0.6], [0.0, 0.6]], rtol=1e-6
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_a_fixed_range_stays(bits):
    quantizer = quantizers.FixedRangeQuantizer(bits, -1.0, 3.0)
    variables = quantizer.build(None, "input", tf_keras.layers.Layer())
    values = np.linspace(-9, 9, 5000).astype("float32")
    received = quantizer(tf.constant(values), True, weights=variables).numpy()
    assert (variables["min_var"].numpy(), variables["max_var"].numpy()) == (-1.0, 3.0)
    step = 4 / (2**bits - 1)
    # Zero is one of the steps, for which TensorFlow moves the range by half a step at most.
    assert len(np.unique(received)) == 2**bits
    assert 0 in received
    inside = np.abs(values - 1) < 2 - step
    assert np.abs(received - values)[inside].max() <= step / 2 * 1.001


@pytest.mark.parametrize(
    ("function", "count"),
    [("linear", 1), ("relu", 1), ("relu6", 1), ("softmax", 1), ("tanh", 1), ("swish", 2)],
)
def test_where_activations_are_rounded(function, count):
    activation = tf_keras.layers.Activation(function).activation
    quantized = quantizers.QuantizedActivation(
        activation, quantizers.activation_quantizer(8), None, tf_keras.layers.Layer()
    )
    assert len(quantized.ranges()) == count
    quantized.training = True
    x = tf.constant(normal(4, 5))
    np.testing.assert_allclose(quantized(x), activation(x), atol=0.06)


@pytest.mark.parametrize(
    "quantizer",
    [
        quantizers.WeightQuantizer(4, 1, True),
        quantizers.StructureKeeper(),
        quantizers.FixedRangeQuantizer(8, 0.0, 1.0),
        quantizers.activation_quantizer(6),
        quantizers.input_quantizer(8, None),
        quantizers.input_quantizer(8, (0.0, 1.0)),
    ],
    ids=lambda quantizer: type(quantizer).__name__,
)
def test_quantizers_are_packed_and_unpacked(quantizer):
    again = quantizers.unpacked(quantizers.packed(quantizer))
    assert type(again) is type(quantizer)
    assert again.get_config() == quantizer.get_config()
