"""Outputs that are compared, and the one place where values become a loss."""

import numpy as np
import pytest

from keras_kd.losses import DistillationLoss, LogitsMSE
from keras_kd.losses.base import matching_outputs
from keras_kd.losses.reduction import weighted_mean

TEACHER = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0]])}
STUDENT = {"a": np.array([[1.0, 4.0]]), "b": np.array([[0.0]])}


def test_all_outputs_are_compared_and_added():
    assert float(LogitsMSE().compute_loss(TEACHER, STUDENT)) == 2.0 + 9.0
    as_lists = LogitsMSE().compute_loss(list(TEACHER.values()), tuple(STUDENT.values()))
    assert float(as_lists) == 2.0 + 9.0


@pytest.mark.parametrize("outputs", ["a", ["a"]])
def test_named_outputs_only(outputs):
    assert float(LogitsMSE(outputs=outputs).compute_loss(TEACHER, STUDENT)) == 2.0


@pytest.mark.parametrize("outputs", [1, [1]])
def test_numbered_outputs_only(outputs):
    teacher, student = list(TEACHER.values()), list(STUDENT.values())
    assert float(LogitsMSE(outputs=outputs).compute_loss(teacher, student)) == 9.0


def test_a_student_may_have_outputs_of_its_own_when_the_others_are_named():
    assert len(matching_outputs({"a": 1}, {"a": 2, "own": 3}, ["a"])) == 1
    with pytest.raises(
        ValueError, match=r"outputs \['a'\] from the teacher and \['a', 'own'\].*outputs=\[...\]"
    ):
        matching_outputs({"a": 1}, {"a": 2, "own": 3}, None)


def test_weights_and_masks_per_output():
    weights = {"a": np.array([2.0]), "b": np.array([0.0])}
    assert float(LogitsMSE().compute_loss(TEACHER, STUDENT, sample_weight=weights)) == 4.0
    masks = {"a": np.array([False]), "b": np.array([True])}
    assert float(LogitsMSE().compute_loss(TEACHER, STUDENT, mask=masks)) == 9.0


def test_a_missing_output_is_named():
    with pytest.raises(
        ValueError, match=r"outputs=\['c'\] where the teacher has \['a', 'b'\].*correct \['c'\]"
    ):
        LogitsMSE(outputs="c").compute_loss(TEACHER, STUDENT)


@pytest.mark.parametrize("outputs", [[1.5], [None], 2.0])
def test_outputs_are_names_or_numbers(outputs):
    with pytest.raises(TypeError, match="names or indexes of model outputs"):
        LogitsMSE(outputs=outputs)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"\(1, 2\) from the teacher and \(1, 3\) from the student for LogitsMSE"
    ):
        LogitsMSE().validate_outputs(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="outputs 'a' of shape"):
        LogitsMSE().validate_outputs({"a": np.zeros((1, 2))}, {"a": np.zeros((1, 2, 1))})


def test_a_loss_without_a_formula_says_so():
    with pytest.raises(NotImplementedError, match="DistillationLoss states no formula"):
        DistillationLoss().compute_loss(np.zeros((1, 2)), np.zeros((1, 2)))


def test_a_formula_on_the_labels_gets_those_of_its_output():
    class Labelled(DistillationLoss):
        def per_example(self, teacher_output, student_output, *, y):
            return student_output[:, 0] * y

    y = {"a": np.array([5.0]), "b": np.array([7.0])}
    assert float(Labelled(outputs="a").compute_loss(TEACHER, STUDENT, y=y)) == 5.0
    assert (
        float(Labelled().compute_loss(np.ones((1, 1)), np.ones((1, 1)), y=np.array([5.0]))) == 5.0
    )


def test_the_mean_counts_weighted_values_and_leaves_out_masked_ones():
    values = np.array([1.0, 2.0, 3.0, np.nan], "float32")
    mask = np.array([1, 1, 1, 0])
    assert float(weighted_mean(values, mask=mask)) == 2.0
    assert float(weighted_mean(values, np.array([0.0, 0.0, 6.0, 1.0]), mask)) == 6.0
    assert float(weighted_mean(np.float32(4.0), sample_weight=np.zeros(3))) == 4.0
