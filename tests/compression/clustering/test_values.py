"""Where the values that weights share begin, and which of them a weight takes."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_model_optimization.python.core.clustering.keras import (
    cluster_config,
    clustering_algorithm,
    clustering_centroids,
)

from keras_kd.compression.clustering._wrapper import INITIALIZATIONS, initial_centroids, nearest


def weights(count=200, zeros=0):
    values = np.random.default_rng(0).normal(size=count).astype("float32")
    values[:zeros] = 0
    return values


@pytest.mark.parametrize("name", ["kmeans++", "linear", "density"])
def test_the_values_are_those_of_tf_mot_at_a_scale_of_one(name):
    values = weights()
    values /= np.abs(values).max()
    factory = clustering_centroids.CentroidsInitializerFactory
    theirs = factory.get_centroid_initializer(INITIALIZATIONS[name])(values, 8)
    received = initial_centroids(values, 8, INITIALIZATIONS[name], False)
    np.testing.assert_allclose(received, theirs.get_cluster_centroids(), rtol=1e-6)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", INITIALIZATIONS)
@pytest.mark.parametrize("preserve_sparsity", [False, True])
def test_small_weights_get_values_in_proportion(name, preserve_sparsity):
    values = weights(zeros=100 * preserve_sparsity)
    for scale in (1e-4, 1e4):
        tf.random.set_seed(3)
        expected = initial_centroids(values, 9, INITIALIZATIONS[name], preserve_sparsity)
        assert expected.shape == (9 - preserve_sparsity,)
        assert len(np.unique(expected)) >= 6
        tf.random.set_seed(3)
        received = initial_centroids(values * scale, 9, INITIALIZATIONS[name], preserve_sparsity)
        np.testing.assert_allclose(received, expected * scale, rtol=1e-4)


def test_tf_mot_itself_finds_no_densities_in_small_weights():
    # The trap that the scaling avoids: a margin of 0.01 around weights of 0.0001.
    factory = clustering_centroids.CentroidsInitializerFactory
    theirs = factory.get_centroid_initializer(INITIALIZATIONS["density"])(weights() * 1e-4, 9)
    assert len(np.unique(theirs.get_cluster_centroids())) <= 4


def test_where_zeros_stay_the_values_are_divided_between_the_signs():
    values = np.concatenate([np.zeros(50), np.linspace(1, 2, 75), -np.linspace(1, 2, 25)])
    found = initial_centroids(values, 9, INITIALIZATIONS["linear"], True)
    assert np.sum(found > 0) == 6
    assert np.sum(found < 0) == 2


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_few_different_weights_are_the_values(name):
    values = np.array([0.5, -1, 0.5, 0, 0.5])
    received = initial_centroids(values, 6, INITIALIZATIONS[name], False)
    assert sorted(set(received)) == [-1, 0, 0.5]
    received = initial_centroids(values, 6, INITIALIZATIONS[name], True)
    assert sorted(set(received)) == [-1, 0.5]
    assert received.shape == (5,)


@pytest.mark.parametrize("preserve_sparsity", [False, True])
def test_nothing_but_zeros(preserve_sparsity):
    received = initial_centroids(np.zeros(9), 4, INITIALIZATIONS["kmeans++"], preserve_sparsity)
    np.testing.assert_array_equal(received, np.zeros(4 - preserve_sparsity))


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
