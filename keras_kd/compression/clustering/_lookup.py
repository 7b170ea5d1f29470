"""Weights that share values: each takes the nearest one, and gradients reach both."""

from __future__ import annotations

import tensorflow as tf

from keras_kd._keras import at_least_float32


def nearest(weights: tf.Tensor, centroids: tf.Tensor, average_gradients: bool) -> tf.Tensor:
    """Put the nearest of its group's values in place of each weight (Cho et al., 2022).

    The gradient of a value is the sum, or the average, of those of the weights that took it. The
    weights receive their gradients as if nothing had been put in their place.

    Args:
        weights: shape (groups, weights).
        centroids: the values, shape (groups, values), in any order.
        average_gradients: whether to average.

    Returns:
        Shape (groups, weights).
    """
    # By bisection: a table of the distances of all weights to all values does not fit in memory
    # for large kernels.
    order = tf.argsort(centroids, axis=-1)
    ascending = at_least_float32(tf.gather(centroids, order, batch_dims=1))
    middles = (ascending[:, 1:] + ascending[:, :-1]) / 2
    ranks = tf.searchsorted(tf.stop_gradient(middles), at_least_float32(weights))
    indices = tf.gather(order, ranks, batch_dims=1)
    if average_gradients:
        centroids = _averaging(centroids, indices)
    return _in_place_of(weights, tf.gather(centroids, indices, batch_dims=1))


@tf.custom_gradient
def _in_place_of(weights: tf.Tensor, values: tf.Tensor) -> tuple:
    return tf.identity(values), lambda upstream: (upstream, upstream)


@tf.custom_gradient
def _averaging(centroids: tf.Tensor, indices: tf.Tensor) -> tuple:
    groups, count = centroids.shape
    flat = tf.reshape(indices + count * tf.range(groups)[:, None], [-1])
    takers = tf.math.unsorted_segment_sum(tf.ones_like(flat), flat, groups * count)
    takers = tf.cast(tf.reshape(takers, (groups, count)), centroids.dtype)
    return tf.identity(centroids), lambda upstream: (
        tf.math.divide_no_nan(upstream, takers),
        None,
    )
