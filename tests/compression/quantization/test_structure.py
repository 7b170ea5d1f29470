import numpy as np
import pytest

from keras_kd.compression.quantization.structure import (
    MOST_CLUSTERS,
    ZERO,
    parts_of_structure,
    structure_of,
)


def of_values(values, shape, seed=0):
    return np.random.default_rng(seed).choice(np.asarray(values, "float32"), shape)


def test_zeros_are_kept_and_the_others_are_on_their_own():
    kernel = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    kernel[kernel < 0] = 0
    structure = structure_of(kernel)
    own = np.arange(kernel.size).reshape(kernel.shape)
    np.testing.assert_array_equal(structure, np.where(kernel == 0, ZERO, own))
    assert parts_of_structure(structure) == ["zeros"]


@pytest.mark.parametrize(
    ("values", "parts"),
    [([-1.0, 0.5, 2.0], ["clusters"]), ([0.0, 0.5, 2.0], ["zeros", "clusters"])],
)
def test_equal_weights_follow_the_first_of_them(values, parts):
    kernel = of_values(values, (4, 6))
    structure = structure_of(kernel)
    flat = kernel.reshape(-1)
    for place, leader in enumerate(structure.reshape(-1)):
        if flat[place] == 0:
            assert leader == ZERO
        else:
            assert leader == np.flatnonzero(flat == flat[place])[0]
    assert parts_of_structure(structure) == parts


def test_zeros_and_clusters_are_kept_each_for_itself():
    kernel = of_values([0.0, 0.5, 2.0], (4, 6))
    own = np.arange(kernel.size).reshape(kernel.shape)
    zeros = structure_of(kernel, clusters=False)
    np.testing.assert_array_equal(zeros, np.where(kernel == 0, ZERO, own))
    clusters = structure_of(kernel, zeros=False)
    assert parts_of_structure(clusters) == ["clusters"]
    np.testing.assert_array_equal(kernel.reshape(-1)[clusters], kernel)
    assert len(np.unique(clusters)) == 3
    assert structure_of(kernel, zeros=False, clusters=False) is None


def test_clusters_of_channels_are_kept_apart():
    # More values than a clustered kernel has, but few in each channel.
    channels = [of_values(np.arange(1, 20) * (c + 1) + c / 7, (5, 10), c) for c in range(40)]
    kernel = np.stack(channels, -1)
    assert len(np.unique(kernel)) > MOST_CLUSTERS
    structure = structure_of(kernel)
    for channel in range(40):
        leaders, values = structure[..., channel].reshape(-1), kernel[..., channel].reshape(-1)
        assert set(leaders % 40) == {channel}
        np.testing.assert_array_equal(kernel.reshape(-1)[leaders], values)
        assert len(set(leaders)) == len(set(values))


@pytest.mark.parametrize(
    "kernel",
    [
        np.random.default_rng(0).normal(size=(8, 8)).astype("float32"),
        np.zeros((4, 4), "float32"),
        np.ones((4, 4), "float32"),
        np.zeros((0, 4), "float32"),
        of_values(np.arange(1, 600), (40, 50)),
        # Four weights of two values might be chance.
        np.asarray([[1.0], [1.0], [2.0], [3.0]], "float32"),
    ],
    ids=["free", "zero", "constant", "empty", "too many values", "too few weights"],
)
def test_kernels_without_structure(kernel):
    assert structure_of(kernel) is None
