"""From probabilities back to logits, in traced functions and outside, against NumPy in float64."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_kd import _logits
from keras_kd._distributions import DERIVED, JOINED, LOGITS, UNKNOWN

TEMPERATURE = 2.0
DROPOUT = layers.Dropout(0.5)
Z = np.random.default_rng(0).normal(size=(6, 4, 3)) * 3.0
# Probabilities of 0 in float32, whose logarithm would be infinite.
EXTREME = Z * 100.0


def softmax(z, axis=-1):
    powers = np.exp(z - z.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def logsumexp(z, axis):
    largest = z.max(axis=axis, keepdims=True)
    return (largest + np.log(np.exp(z - largest).sum(axis=axis, keepdims=True))).squeeze(axis)


def log_softmax(z):
    return z - logsumexp(z, -1)[..., None]


def complements(p):
    return ops.concatenate([1.0 - p, p], axis=-1)


def renormalized(p):
    return p / ops.sum(p, axis=-1, keepdims=True)


def odds_of_last(z):
    return (z[..., 2] - logsumexp(z[..., :2], -1))[..., None]


def mean_odds(z):
    on, off = (np.mean(1 / (1 + np.exp(-sign * z)), axis=1) for sign in (1, -1))
    return np.log(on) - np.log(off)


def two_classes(z):
    return np.concatenate([np.zeros_like(z[..., :1]), z[..., :1]], axis=-1)


def with_mask(z):
    return layers.Softmax()(z, mask=ops.ones_like(z) > 0)


# What is done to logits of shape (6, 4, 3); and the logits, but for a number in each row.
SOFTMAX = {
    "time distributed": (layers.TimeDistributed(layers.Activation("softmax")), lambda z: z),
    "dropout and identity": (
        lambda z: layers.Identity()(DROPOUT(ops.softmax(z), training=False)),
        lambda z: z,
    ),
    "flattened and back": (
        lambda z: layers.Reshape((4, 3))(layers.Flatten()(ops.softmax(z))),
        None,
    ),
    "other axis, permuted": (
        lambda z: layers.Permute((2, 1))(layers.Softmax(axis=1)(layers.Permute((2, 1))(z))),
        None,
    ),
    "some positions": (lambda z: ops.softmax(z)[:, 1:3], lambda z: z[:, 1:3]),
    "one position": (lambda z: ops.softmax(z)[:, -1], lambda z: z[:, -1]),
    "squeezed": (lambda z: ops.squeeze(ops.softmax(z)[:, 2:3], axis=1), lambda z: z[:, 2]),
    "joined positions": (
        lambda z: ops.concatenate([ops.softmax(z[:, :1]), ops.softmax(z[:, 1:])], axis=1),
        None,
    ),
    "stacked positions": (
        lambda z: ops.stack([ops.softmax(z[:, place]) for place in range(4)], axis=1),
        None,
    ),
    "split and stacked": (
        lambda z: ops.stack(ops.unstack(ops.softmax(z), axis=1)[::-1], axis=1),
        lambda z: z[:, ::-1],
    ),
    "some classes": (lambda z: ops.softmax(z)[..., 1:], lambda z: z[..., 1:]),
    "chosen classes": (
        lambda z: ops.take(ops.softmax(z), [2, 0], axis=-1),
        lambda z: z[..., [2, 0]],
    ),
    "reversed classes": (lambda z: ops.flip(ops.softmax(z), axis=-1), lambda z: z[..., ::-1]),
    "renormalized": (lambda z: renormalized(ops.softmax(z)[..., :2]), lambda z: z[..., :2]),
    "part of joined heads": (
        lambda z: ops.split(ops.concatenate([ops.softmax(z), ops.softmax(-z)], axis=-1), 2, -1)[1],
        lambda z: -z,
    ),
    "mean layer": (
        lambda z: layers.Average()([ops.softmax(z), ops.softmax(-z)]),
        lambda z: np.logaddexp(log_softmax(z), log_softmax(-z)),
    ),
    "mean of a stack": (
        lambda z: ops.mean(ops.stack([ops.softmax(z), ops.softmax(-z)]), axis=0),
        lambda z: np.logaddexp(log_softmax(z), log_softmax(-z)),
    ),
    "weighted mean": (
        lambda z: 0.2 * ops.softmax(z) + ops.softmax(-z) * 0.8,
        lambda z: np.logaddexp(log_softmax(z) + np.log(0.2), log_softmax(-z) + np.log(0.8)),
    ),
    "mean over positions": (
        lambda z: layers.GlobalAveragePooling1D()(ops.softmax(z)),
        lambda z: logsumexp(log_softmax(z), 1),
    ),
    "label smoothing": (
        lambda z: ops.softmax(z) * 0.9 + 0.1 / 3,
        lambda z: np.log(softmax(z) * 0.9 + 0.1 / 3),
    ),
    "guard": (lambda z: ops.clip(ops.softmax(z) + 1e-9, 1e-7, 1.0), None),
    "percent": (lambda z: layers.Rescaling(100.0)(ops.softmax(z)), None),
    "mask": (with_mask, None),
    "half precision": (
        lambda z: ops.cast(ops.softmax(ops.cast(z, "float16")), "float32"),
        lambda z: z.astype("float16").astype("float64"),
    ),
    "sigmoid and its complement": (lambda z: complements(ops.sigmoid(z[..., :1])), two_classes),
    "stacked complement": (
        lambda z: (lambda p: ops.stack([1.0 - p, p], axis=-1))(ops.sigmoid(z[..., 0])),
        two_classes,
    ),
}
SIGMOID = {
    "heads": (
        lambda z: layers.Concatenate()([ops.sigmoid(z[..., :1]), ops.sigmoid(z[..., 1:])]),
        lambda z: z,
    ),
    "stacked heads": (
        lambda z: ops.stack([ops.sigmoid(z[..., unit]) for unit in range(3)], axis=-1),
        lambda z: z,
    ),
    "flattened": (
        lambda z: layers.Flatten()(ops.sigmoid(z)),
        lambda z: z.reshape(len(z), -1),
    ),
    "permuted": (
        lambda z: layers.Permute((2, 1))(ops.sigmoid(z)),
        lambda z: z.transpose(0, 2, 1),
    ),
    "off": (lambda z: 1.0 - ops.sigmoid(z), lambda z: -z),
    "mean over positions": (lambda z: ops.mean(ops.sigmoid(z), axis=1), mean_odds),
    "one class of a softmax": (lambda z: ops.softmax(z)[..., 2:], odds_of_last),
    "one class without an axis": (
        lambda z: ops.softmax(z)[..., 2],
        lambda z: odds_of_last(z)[..., 0],
    ),
    "guard": (lambda z: ops.clip(ops.sigmoid(z), 1e-7, 1.0 - 1e-7), lambda z: z),
}


def recognised(function, z, mode):
    """What is seen of a function's result; `in graph` with sizes of batches that are not known."""
    if mode == "eager":
        with _logits.noting() as remember:
            output = function(tf.constant(z, "float32"))
            remember(output)
        return _logits.recognise_logits(output)
    seen = []

    @tf.function(input_signature=[tf.TensorSpec((None, *z.shape[1:]))], autograph=False)
    def traced(z):
        seen.append(_logits.recognise_logits(function(z)))
        return seen[0].logits

    logits = traced(tf.constant(z, "float32"))
    return dataclasses.replace(seen[0], logits=logits)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", SOFTMAX)
def test_distributions(name, mode):
    function, logits = SOFTMAX[name]
    found = recognised(function, Z, mode)
    assert (found.activation, found.classes) == ("softmax", None)
    expected = softmax((Z if logits is None else logits(Z)) / TEMPERATURE)
    np.testing.assert_allclose(softmax(np.asarray(found.logits) / TEMPERATURE), expected, rtol=2e-5)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", SIGMOID)
def test_probabilities_each_by_itself(name, mode):
    function, logits = SIGMOID[name]
    found = recognised(function, Z, mode)
    assert (found.activation, found.classes) == ("sigmoid", None)
    np.testing.assert_allclose(found.logits, logits(Z), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["flattened and back", "chosen classes", "mean layer"])
def test_probabilities_of_0_have_logits(name):
    function, logits = SOFTMAX[name]
    found = np.asarray(recognised(function, EXTREME, "graph").logits)
    expected = EXTREME if logits is None else logits(EXTREME)
    assert (softmax(expected) < 1e-45).any()
    np.testing.assert_allclose(log_softmax(found), log_softmax(expected), rtol=1e-5, atol=1e-3)


def test_odds_of_a_class_that_is_nearly_certain():
    found = recognised(SIGMOID["one class of a softmax"][0], EXTREME, "graph").logits
    np.testing.assert_allclose(found, odds_of_last(EXTREME), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    "function",
    [
        lambda z: layers.Flatten()(ops.softmax(z)),
        lambda z: layers.Reshape((2, 6))(ops.softmax(z)),
        lambda z: ops.concatenate([ops.softmax(z), ops.softmax(-z)], axis=-1),
    ],
)
def test_several_distributions_in_a_row(function, mode):
    seen = recognised(function, Z, mode)
    assert (seen.activation, seen.classes) == ("softmax", 3)
    rows = seen.in_rows(3).logits
    np.testing.assert_allclose(
        np.asarray(rows).reshape(6, -1, 3)[:, 0], Z[:, 0].astype("float32"), rtol=1e-6
    )


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    ("function", "origin"),
    [
        (lambda z: ops.softmax(z) ** 2, DERIVED),
        (lambda z: ops.sigmoid(z) * ops.sigmoid(-z), DERIVED),
        (lambda z: DROPOUT(ops.softmax(z), training=True), DERIVED),
        (lambda z: ops.maximum(ops.softmax(z), 0.2), DERIVED),
        (lambda z: ops.sigmoid(z) * 10.0, DERIVED),
        (lambda z: ops.take(ops.softmax(z), [0, 0, 1], axis=-1), DERIVED),
        (lambda z: ops.concatenate([ops.softmax(z), ops.softmax(z[..., :2])], axis=-1), JOINED),
        (lambda z: ops.concatenate([ops.softmax(z), ops.relu(z)], axis=-1), JOINED),
        (lambda z: ops.concatenate([ops.softmax(z), ops.sigmoid(z)], axis=-1), JOINED),
        (ops.log_softmax, LOGITS),
        (lambda z: ops.log(ops.softmax(z)), LOGITS),
        (lambda z: layers.Flatten()(ops.relu(z)), LOGITS),
        (lambda z: ops.matmul(z, ops.ones((3, 2))), LOGITS),
        (lambda z: ops.matmul(ops.softmax(z), ops.ones((3, 2))), UNKNOWN),
        (ops.hard_sigmoid, UNKNOWN),
        (lambda z: ops.exp(z) / ops.sum(ops.exp(z), axis=-1, keepdims=True), UNKNOWN),
    ],
)
def test_what_cannot_be_undone(function, origin, mode):
    seen = recognised(function, Z, mode)
    assert (seen.activation, seen.origin) == (None, origin)


@pytest.mark.parametrize(
    "function",
    [
        lambda z: layers.Softmax(axis=1)(z),
        lambda z: layers.Flatten()(layers.Permute((2, 1))(ops.softmax(z))),
        lambda z: ops.expand_dims(ops.softmax(z), axis=-1),
    ],
)
def test_classes_that_are_not_on_the_last_axis(function):
    assert recognised(function, Z, "graph").activation == _logits.OTHER_AXIS


def test_gradients_are_those_of_the_logits(formulas):
    from keras_kd.losses import SoftTargets

    teacher = Z[::-1].reshape(6, 12)
    variable = tf.Variable(Z, dtype="float32")

    @tf.function(autograph=False)
    def gradient():
        with tf.GradientTape() as tape:
            student = layers.Flatten()(ops.softmax(variable))
            loss = SoftTargets(TEMPERATURE).compute_loss(teacher, student)
        return loss, tape.gradient(loss, variable)

    loss, found = gradient()
    softened = softmax(Z / TEMPERATURE), softmax(Z[::-1] / TEMPERATURE)
    values = formulas.soft_targets(Z[::-1], Z, temperature=TEMPERATURE)
    assert float(loss) == pytest.approx(values.mean(), rel=1e-5)
    np.testing.assert_allclose(
        found, TEMPERATURE * (softened[0] - softened[1]) / values.size, atol=1e-6
    )


def test_nothing_is_noted_where_nobody_asks():
    output = keras.ops.reshape(keras.ops.softmax(tf.constant(Z, "float32")), (6, 12))
    assert _logits.recognise_logits(output).origin == UNKNOWN


def test_long_chains_of_sums_are_not_followed_to_their_end():
    def residual(z):
        last = tf.nn.softmax(z)
        for _ in range(300):
            last = last + z
        return last

    seen = recognised(residual, Z, "graph")
    assert seen.activation is None
