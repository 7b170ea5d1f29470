"""Probabilities of neighbours."""

import numpy as np
import pytest

from keras_kd.losses import ProbabilisticTransfer


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [((5, 7), (5, 8)), ((3, 4, 4, 2), (3, 9)), ((64, 3), (64, 5))],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_any_shapes(formulas, features, teacher_shape, student_shape, seed):
    teacher, student = features(seed, teacher_shape, student_shape)
    expected = formulas.relations.probabilistic_transfer(teacher, student)
    value = float(ProbabilisticTransfer().compute_loss(teacher, student))
    assert value == pytest.approx(expected, rel=1e-5)


def test_a_small_divergence_keeps_its_digits(formulas, features):
    teacher, noise = features(1, (32, 16), (32, 16))
    student = teacher + 1e-3 * noise
    expected = formulas.relations.probabilistic_transfer(teacher, student)
    assert expected < 1e-8
    value = float(ProbabilisticTransfer().compute_loss(teacher, student))
    assert value == pytest.approx(expected, rel=1e-3)


def test_opposite_examples_are_finite_and_exact(formulas):
    teacher = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], "float32")
    student = teacher[[0, 2, 1]]
    expected = formulas.relations.probabilistic_transfer(teacher, student)
    value = float(ProbabilisticTransfer().compute_loss(teacher, student))
    assert value == pytest.approx(expected, rel=1e-5)


def test_turns_and_lengths_do_not_count(features, turn):
    teacher, student = features(1, (5, 7), (5, 6))
    loss = ProbabilisticTransfer()
    value = float(loss.compute_loss(teacher, student))
    lengths = np.array([[1e-6], [1.0], [2.0], [3.0], [1e6]], "float32")
    assert float(loss.compute_loss(teacher, lengths * student @ turn)) == pytest.approx(value, 1e-4)


def test_an_example_of_weight_2_is_picked_as_two(features):
    teacher, student = features(1, (3, 7), (3, 6))
    loss = ProbabilisticTransfer()
    twice = np.array([0, 0, 1, 2])
    repeated = float(loss.compute_loss(teacher[twice], student[twice]))
    weighted = loss.compute_loss(teacher, student, sample_weight=np.array([2.0, 1.0, 1.0]))
    # The formula divides by the effective number of examples, 4^2 / 6 and not 4, and the mean
    # weight is 4 / 3.
    assert float(weighted) == pytest.approx(repeated * (4 * 6 / 4**2) * (4 / 3), rel=1e-4)
