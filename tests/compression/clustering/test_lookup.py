import numpy as np
import pytest
import tensorflow as tf
from tensorflow_model_optimization.python.core.clustering.keras import (
    cluster_config,
    clustering_algorithm,
)

from keras_kd.compression.clustering._lookup import nearest


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def by_hand(weights, centroids):
    distances = np.abs(weights[:, :, None].astype("float64") - centroids[:, None].astype("float64"))
    return np.take_along_axis(centroids, np.argmin(distances, axis=-1), axis=1)


@pytest.mark.parametrize("centroids", [1, 2, 7])
def test_each_weight_takes_the_nearest_value_of_its_row(centroids):
    weights, values = random(3, 50), random(3, centroids)[:, ::-1]
    np.testing.assert_array_equal(nearest(weights, values, False), by_hand(weights, values))


def test_values_that_are_equal_or_far_away():
    weights = np.array([[-2.0, -0.1, 0.0, 0.1, 3.0]], "float32")
    values = np.array([[1e30, 0.5, 0.5, -1.0]], "float32")
    np.testing.assert_array_equal(nearest(weights, values, False), [[-1, 0.5, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize(("average", "name"), [(False, "SUM"), (True, "AVG")])
def test_gradients_are_those_of_tf_mot(average, name):
    weights, values, upstream = random(1, 40), random(1, 5), random(1, 40) + 1
    theirs = tf.Variable(values[0])
    algorithm = clustering_algorithm.ClusteringAlgorithm(
        theirs, getattr(cluster_config.GradientAggregation, name)
    )
    originals = tf.Variable(weights[0])
    with tf.GradientTape() as tape:
        clustered = algorithm.get_clustered_weight(
            algorithm.get_pulling_indices(originals), originals
        )
        loss = tf.reduce_sum(clustered * upstream[0])
    expected = tape.gradient(loss, [originals, theirs])
    ours = [tf.Variable(weights), tf.Variable(values)]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(nearest(*ours, average) * upstream)
    received = tape.gradient(loss, ours)
    np.testing.assert_allclose(received[0][0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(received[1][0], tf.convert_to_tensor(expected[1]), rtol=1e-5)


def test_half_precision_is_compared_in_full():
    # In float16 the middle of these two would be one of them.
    values = np.array([[2048, 2050]], "float16")
    weights = np.array([[2048, 2050]], "float16")
    np.testing.assert_array_equal(nearest(weights, values, False), values)
