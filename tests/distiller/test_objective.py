"""The total: losses, their weights, and what is said of wrong ones."""

import warnings

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.distiller.objective import Objective
from keras_kd.losses import Hint, LogitsMSE, SoftTargets
from keras_kd.taps import Tapped

OUTPUTS = Tapped(np.array([[1.0, 3.0]], "float32"), {})
OTHERS = Tapped(np.array([[1.0, 1.0]], "float32"), {})


def test_the_total_weighs_the_two_kinds():
    objective = Objective([LogitsMSE(), LogitsMSE()], [2.0, 0.5], student_loss_weight=0.25)
    soft = objective.distillation_loss(OUTPUTS, OTHERS)
    assert float(soft) == 2.5 * 2.0
    assert float(objective.total(keras.ops.convert_to_tensor(4.0), soft)) == 0.25 * 4.0 + 0.75 * 5.0


@pytest.mark.parametrize("weight", [0, 0.0, 1, 1.0, np.float32(0.5)])
def test_shares_from_0_to_1(weight):
    assert Objective(student_loss_weight=weight).student_loss_weight == float(weight)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range(weight):
    with pytest.raises(
        ValueError,
        match=r"Received student_loss_weight=.*at least 0.0 and at most 1.0.*use a share",
    ):
        Objective(student_loss_weight=weight)


@pytest.mark.parametrize("weight", ["0.5", None, True])
def test_shares_that_are_no_number(weight):
    with pytest.raises(TypeError, match=r"Received student_loss_weight=.*a finite number"):
        Objective(student_loss_weight=weight)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0], 1.0])
def test_as_many_weights_as_losses(weights):
    with pytest.raises(
        ValueError,
        match=r"Received \d distillation_loss_weights for 2 .*pass a list of 2 numbers",
    ):
        Objective([LogitsMSE(), LogitsMSE()], weights)


@pytest.mark.parametrize(
    ("weights", "error"), [([-1.0], ValueError), (["1"], TypeError), ([float("inf")], ValueError)]
)
def test_weights_are_finite_and_not_negative(weights, error):
    with pytest.raises(
        error, match=r"Received distillation_loss_weights=.*a finite number at least 0.0"
    ):
        Objective(LogitsMSE(), weights)


@pytest.mark.parametrize("loss", ["kl_divergence", SoftTargets, keras.losses.KLDivergence(), 4.0])
def test_what_is_no_distillation_loss(loss):
    with pytest.raises(
        TypeError, match=r"Received distillation loss .*keras_kd.losses.*pass for example"
    ):
        Objective(loss)


def test_no_losses_are_too_few():
    with pytest.raises(ValueError, match=r"Received distillation_losses=\[\].*To fix it"):
        Objective([])


def test_a_loss_of_ones_own_must_give_a_scalar():
    class PerExample(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.mean(student_outputs, axis=-1)

    with pytest.raises(
        ValueError,
        match=r"shape \(1,\) from PerExample.compute_loss. Expected a scalar.*per_example",
    ):
        Objective(PerExample()).distillation_loss(OUTPUTS, OTHERS)


def test_a_loss_of_ones_own_counts():
    class Mine(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.sum(student_outputs - teacher_outputs)

    assert float(Objective(Mine(), 3.0).distillation_loss(OUTPUTS, OTHERS)) == -6.0


@pytest.mark.parametrize("loss", [SoftTargets(), keras.distillation.LogitsDistillation()])
def test_outputs_that_the_teacher_does_not_give(loss):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        objective = Objective([Hint("hidden", "hidden"), loss])
    features = Tapped(None, {"hidden": OUTPUTS.outputs})
    student = Tapped(OTHERS.outputs, {"hidden": OTHERS.outputs})
    message = f"{type(loss).__name__} with a teacher that gives features alone.*To fix it: store"
    with pytest.raises(ValueError, match=message):
        objective.connect(features, student)
    with pytest.raises(ValueError, match=message):
        objective.distillation_loss(features, student)
    assert float(Objective(Hint("hidden", "hidden")).distillation_loss(features, student)) == 2.0


def test_weights_may_be_an_array():
    weights = Objective([LogitsMSE(), LogitsMSE()], np.array([1.0, 2.0])).weights
    assert weights == [1.0, 2.0]


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_a_cross_entropy_by_name_warns_for_logits(dense_model, teacher, activation):
    distiller = keras_kd.Distiller(teacher, dense_model(activation=activation))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distiller.compile("sgd", "sparse_categorical_crossentropy")
    told = [
        str(warning.message) for warning in caught if "from_logits=True" in str(warning.message)
    ]
    assert len(told) == (activation is None)
