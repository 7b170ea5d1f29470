import numpy as np
import pytest

from keras_kd.compression.factorization.decomposition import Decomposition


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(7, 5)).astype("float32")


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_errors_are_those_of_the_product_of_the_factors(matrix, rank):
    decomposition = Decomposition.of(matrix)
    first, second = decomposition.factors(rank)
    assert first.shape == (7, rank)
    assert second.shape == (rank, 5)
    difference = matrix.astype("float64") - first @ second
    norm = np.linalg.norm(matrix.astype("float64"))
    error = np.sqrt(decomposition.squared_errors[rank])
    assert error == pytest.approx(np.linalg.norm(difference) / norm, abs=1e-12)
    spectral = np.linalg.norm(difference, 2)
    assert decomposition.spectral_error(rank) == pytest.approx(spectral, abs=1e-12)
    np.testing.assert_allclose(decomposition.residual(rank), difference, atol=1e-12)


def test_no_other_matrix_of_that_rank_is_closer(matrix):
    first, second = Decomposition.of(matrix).factors(2)
    least = np.linalg.norm(matrix - first @ second)
    random = np.random.default_rng(1)
    for scale in (1e-3, 1e-2, 1e-1):
        for _ in range(20):
            other_first = first + scale * random.normal(size=first.shape)
            other_second = second + scale * random.normal(size=second.shape)
            assert np.linalg.norm(matrix - other_first @ other_second) > least


def test_the_factors_have_the_same_norm(matrix):
    first, second = Decomposition.of(matrix).factors(3)
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=1))


def test_energy_keeps_as_few_values_as_it_can():
    decomposition = Decomposition.of(np.diag([3.0, 2.0, 1.0]))
    assert [decomposition.rank_of(energy) for energy in (0.1, 9 / 14, 0.65, 13 / 14, 1.0)] == [
        *(1, 1, 2, 2, 3)
    ]


def test_all_energy_drops_what_rounding_to_float32_has_added():
    random = np.random.default_rng(0)
    product = random.normal(size=(20, 3)) @ random.normal(size=(3, 10))
    rounded = product.astype("float32")
    assert np.linalg.matrix_rank(rounded.astype("float64")) > 3
    assert Decomposition.of(rounded).rank_of(1.0) == 3
    noisy = product + 1e-4 * random.normal(size=(20, 10))
    assert Decomposition.of(noisy).rank_of(1.0) == 10


def test_a_matrix_of_zeros_loses_nothing():
    decomposition = Decomposition.of(np.zeros((4, 3)))
    assert decomposition.rank_of(0.9) == 1
    assert decomposition.squared_errors.tolist() == [0, 0, 0, 0]
    assert all(not factor.any() for factor in decomposition.factors(1))


def test_a_small_tail_beside_a_large_value_is_not_lost():
    decomposition = Decomposition.of(np.diag([1e8, 1e-3, 1e-3]))
    assert np.sqrt(decomposition.squared_errors[1]) == pytest.approx(np.sqrt(2) * 1e-11)
