"""Distances and angles."""

import numpy as np
import pytest

from keras_kd.losses import Relational


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [((5, 7), (5, 2)), ((3, 4, 4, 2), (3, 9)), ((16, 3), (16, 5))],
)
@pytest.mark.parametrize("weights", [(25.0, 50.0), (1.0, 0.0), (0.0, 3.0)])
def test_any_shapes_and_weights(formulas, features, teacher_shape, student_shape, weights):
    teacher, student = features(1, teacher_shape, student_shape)
    loss = Relational(distance_weight=weights[0], angle_weight=weights[1])
    expected = formulas.relations.relational(teacher, student, *weights)
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)


def test_position_turn_and_scale_do_not_count(features, turn):
    teacher, student = features(1, (5, 7), (5, 6))
    loss = Relational()
    value = float(loss.compute_loss(teacher, student))
    moved = 1e3 * student @ turn + np.arange(6, dtype="float32")
    assert float(loss.compute_loss(teacher, moved)) == pytest.approx(value, rel=1e-4)


def test_equal_examples_in_the_batch_are_exact(formulas, features):
    teacher, student = (part[[0, 0, 1, 2, 2]] for part in features(1, (3, 7), (3, 6)))
    expected = formulas.relations.relational(teacher, student)
    assert float(Relational().compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)


def test_weights_of_examples_weigh_pairs_and_triples():
    teacher, student = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [1.0]])
    weights = np.array([2.0, 1.0, 0.0])
    loss = Relational(distance_weight=1.0, angle_weight=1.0)
    # Of two examples all distances are 1 times their mean, in both models.
    assert float(loss.compute_loss(teacher, student, sample_weight=weights)) == pytest.approx(0.0)
    weights = np.array([1.0, 1.0, 2.0])
    pairs = weights[:, None] * weights
    mean_teacher = (1 * 1 + 2 * 2 + 2 * 1) / 5
    mean_student = (1 * 1 + 2 * 1 + 2 * 0) / 5
    gaps = np.array([1, 1, 0]) / mean_student - np.array([1, 2, 1]) / mean_teacher
    huber = np.where(np.abs(gaps) < 1, gaps**2 / 2, np.abs(gaps) - 0.5)
    expected = 2 * (huber * [pairs[0, 1], pairs[0, 2], pairs[1, 2]]).sum() / pairs.sum()
    loss = Relational(distance_weight=1.0, angle_weight=0.0)
    value = float(loss.compute_loss(teacher, student, sample_weight=weights))
    assert value == pytest.approx(expected * weights.mean(), rel=1e-6)


@pytest.mark.parametrize("argument", ["distance_weight", "angle_weight"])
def test_its_weights_are_numbers_of_at_least_0(argument):
    with pytest.raises(ValueError, match=f"Received {argument}=-1.0. Expected .* at least 0"):
        Relational(**{argument: -1.0})
    with pytest.raises(TypeError, match=f"Received {argument}='a'"):
        Relational(**{argument: "a"})
