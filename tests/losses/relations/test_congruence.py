"""Neighbours in the batch."""

import numpy as np
import pytest

from keras_kd.losses import CorrelationCongruence


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 4, 2), (2, 1)])
@pytest.mark.parametrize("seed", [1, 2])
def test_any_shape(formulas, features, shape, seed):
    teacher, student = features(seed, shape, shape)
    expected = formulas.relations.correlation_congruence(teacher, student)
    value = float(CorrelationCongruence().compute_loss(teacher, student))
    assert value == pytest.approx(expected, rel=1e-5)


def test_examples_next_to_one_that_is_left_out_become_neighbours():
    teacher, student = np.zeros((4, 1)), np.array([[2.0], [np.nan], [3.0], [5.0]])
    mask = np.array([True, False, True, True])
    value = CorrelationCongruence().compute_loss(teacher, student, mask=mask)
    assert float(value) == (2 * 3 + 3 * 5) / 2


def test_neighbours_count_by_the_product_of_their_weights():
    teacher, student = np.zeros((3, 1)), np.array([[2.0], [3.0], [5.0]])
    weights = np.array([3.0, 1.0, 2.0])
    value = CorrelationCongruence().compute_loss(teacher, student, sample_weight=weights)
    assert float(value) == pytest.approx((3 * 6 + 2 * 15) / 5 * weights.mean())


def test_one_example_has_no_neighbour():
    assert float(CorrelationCongruence().compute_loss(np.zeros((1, 2)), np.ones((1, 2)))) == 0.0


def test_it_needs_features_of_one_shape():
    loss = CorrelationCongruence("a", "b")
    assert loss.needed_shape((None, 4, 4, 8), (None, 2, 2, 3)) == (None, 4, 4, 8)
    with pytest.raises(ValueError, match=r"\(2, 3\) from the teacher and \(2, 4\) from the stu"):
        loss.validate_outputs(np.zeros((2, 3)), np.zeros((2, 4)))
