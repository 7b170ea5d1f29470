"""Which examples activate a model alike."""

import numpy as np
import pytest

from keras_kd.losses import SimilarityPreserving


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [((5, 7), (5, 2)), ((3, 4, 4, 2), (3, 2, 2, 8)), ((16, 3, 5), (16, 9)), ((2, 1), (2, 1))],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_any_shapes(formulas, features, teacher_shape, student_shape, seed):
    teacher, student = features(seed, teacher_shape, student_shape)
    expected = formulas.relations.similarity_preserving(teacher, student)
    value = float(SimilarityPreserving().compute_loss(teacher, student))
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_turns_and_scales_of_all_features_do_not_count(features, turn):
    teacher, student = features(1, (5, 7), (5, 6))
    loss = SimilarityPreserving()
    value = float(loss.compute_loss(teacher, student))
    assert float(loss.compute_loss(teacher, 1e-12 * student @ turn)) == pytest.approx(value, 1e-5)
    assert float(loss.compute_loss(1e12 * teacher, student)) == pytest.approx(value, 1e-5)


def test_an_example_of_weight_2_counts_as_two(features):
    teacher, student = features(1, (3, 7), (3, 6))
    loss = SimilarityPreserving()
    twice = np.array([0, 0, 1, 2])
    repeated = float(loss.compute_loss(teacher[twice], student[twice]))
    weighted = loss.compute_loss(teacher, student, sample_weight=np.array([2.0, 1.0, 1.0]))
    # The formula divides by the effective number of examples, 4^2 / 6 and not 4, and the mean
    # weight is 4 / 3.
    assert float(weighted) == pytest.approx(repeated * (4 * 6 / 4**2) * (4 / 3), rel=1e-5)
