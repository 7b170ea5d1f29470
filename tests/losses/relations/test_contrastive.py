"""Contrast: the projections, and what is told from what."""

import numpy as np
import pytest

from keras_kd.losses import ContrastiveRepresentation
from keras_kd.losses.relations.contrastive import contrastive


def projections(loss):
    return [variable.numpy() for variable in loss.weights]


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [((5, 7), (5, 2)), ((3, 4, 4, 2), (3, 9)), ((32, 3), (32, 5))],
)
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_any_shapes(formulas, features, teacher_shape, student_shape, temperature):
    teacher, student = features(1, teacher_shape, student_shape)
    loss = ContrastiveRepresentation(temperature=temperature, projection_units=4)
    value = float(loss.compute_loss(teacher, student))
    expected = formulas.relations.contrastive_representation(
        teacher, student, *projections(loss), temperature
    )
    assert value == pytest.approx(expected, rel=1e-5)


def test_projections_start_the_same_in_every_run(features):
    teacher, student = features(1, (5, 6), (5, 6))
    first, second = ContrastiveRepresentation(), ContrastiveRepresentation()
    for loss in (first, second):
        loss.compute_loss(teacher, student)
    for one, other in zip(projections(first), projections(second), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(projections(first)[0] - projections(first)[1]).max() > 0.0


def test_projections_are_made_once(features):
    teacher, student = features(1, (5, 7), (5, 6))
    loss = ContrastiveRepresentation()
    assert loss.weights == []
    loss.compute_loss(teacher, student)
    before = loss.weights
    loss.compute_loss(teacher[:3], student[:3])
    assert all(one is other for one, other in zip(before, loss.weights, strict=True))


def test_projections_belong_to_one_pair_of_layers(features):
    loss = ContrastiveRepresentation()
    loss.compute_loss(*features(1, (5, 7), (5, 6)))
    with pytest.raises(ValueError, match=r"sizes \[7, 4\] for projections of sizes \[7, 6\]"):
        loss.compute_loss(*features(1, (5, 7), (5, 4)))


def test_a_size_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"features of shape \(None, None, 8\).*GlobalAverage"):
        ContrastiveRepresentation().build((None, None, 8), (None, 4))


def test_weights_weigh_anchors_and_those_to_tell_them_from():
    teacher, student = np.eye(3), np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    cosines = (student / np.linalg.norm(student, axis=1, keepdims=True)) @ teacher
    weights = np.array([2.0, 1.0, 0.0])
    first = np.log(np.exp(cosines[0, 0]) + 1 * np.exp(cosines[0, 1])) - cosines[0, 0]
    second = np.log(np.exp(cosines[1, 1]) + 2 * np.exp(cosines[1, 0])) - cosines[1, 1]
    value = float(contrastive(teacher, student, weights, temperature=1.0))
    assert value == pytest.approx((2 * first + second) / 3, rel=1e-6)


def test_its_arguments_are_checked():
    with pytest.raises(ValueError, match=r"Received temperature=0\. Expected .* above 0"):
        ContrastiveRepresentation(temperature=0)
    with pytest.raises(TypeError, match=r"Received projection_units=1\.5\. Expected an integer"):
        ContrastiveRepresentation(projection_units=1.5)
    with pytest.raises(ValueError, match="Received projection_units=0"):
        ContrastiveRepresentation(projection_units=0)
