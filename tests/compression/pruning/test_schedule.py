import numpy as np
import pytest

from keras_kd.compression.pruning.schedule import (
    ConstantSchedule,
    Plan,
    PolynomialSchedule,
    Timetable,
    Training,
)


def training(steps_per_epoch, epochs=1, epoch=0, done=0):
    return Training(done, epoch, epochs, steps_per_epoch)


@pytest.mark.parametrize(
    ("plan", "steps", "expected"),
    [
        (Plan(), training(100), (0, 75, 1)),
        (Plan(), training(2, 4), (0, 6, 1)),
        (Plan(), training(1), (0, 1, 1)),
        (Plan(begin_step=40), training(80), (40, 70, 1)),
        (Plan(), training(4000), (0, 3000, 30)),
        (Plan(frequency=100), training(12), (0, 9, 100)),
        (Plan(0, 10), training(5), (0, 10, 1)),
        (Plan(0, 250), training(5), (0, 250, 2)),
        (Plan(begin_epoch=1, end_epoch=3), training(10, 4), (10, 30, 1)),
        (Plan(begin_epoch=1), training(10, 5), (10, 40, 1)),
        (Plan(end_epoch=2), training(200, 5), (0, 400, 4)),
        # A training that begins at epoch 4 is at its first step there.
        (Plan(begin_epoch=5), training(10, 7, epoch=4), (10, 25, 1)),
        # One that goes on there has had its steps.
        (Plan(begin_epoch=5), training(10, 9, epoch=4, done=40), (50, 80, 1)),
        (Plan(), training(10, 8, epoch=4, done=40), (0, 60, 1)),
        (Plan(np.int64(0), np.int32(10), frequency=np.int8(4)), training(5), (0, 10, 4)),
    ],
)
def test_the_steps_of_a_plan(plan, steps, expected):
    assert plan.timetable(steps) == Timetable(*expected)


def test_a_plan_is_open_without_an_end():
    assert Plan(begin_step=3, frequency=2).fixed is None
    assert Plan(end_epoch=3).fixed is None
    assert Plan(3, 9).fixed == Timetable(3, 9, 1)


@pytest.mark.parametrize(
    ("plan", "steps", "message"),
    [
        (Plan(begin_step=10), training(5), r"to step 5.*from step 10.*begin_step.*prune earlier"),
        (Plan(begin_epoch=2), training(5, 2), r"to step 10.*from step 10 to step"),
        # Data of unknown length: the first epoch is over.
        (Plan(end_epoch=1), training(5, 4, epoch=1, done=5), r"step 5 to step 20.*to step 5 \("),
    ],
)
def test_a_training_in_which_pruning_cannot_begin_or_end(plan, steps, message):
    with pytest.raises(ValueError, match=message):
        plan.timetable(steps)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"begin_step": -1}, ValueError, "begin_step=-1.*at least 0"),
        ({"begin_step": 5, "end_step": 5}, ValueError, "end_step=5 with begin_step=5.*at least 6"),
        ({"begin_epoch": 2, "end_epoch": 1}, ValueError, "end_epoch=1 with begin_epoch=2"),
        ({"end_epoch": 0}, ValueError, "end_epoch=0.*at least 1.*epochs"),
        ({"end_step": 5, "frequency": 0}, ValueError, "frequency=0.*at least 1"),
        ({"begin_step": 0.5}, TypeError, "begin_step=0.5.*whole number of training steps"),
        ({"begin_epoch": 0.5}, TypeError, "begin_epoch=0.5.*whole number of epochs"),
        ({"end_step": True}, TypeError, "end_step=True.*whole number"),
        ({"begin_step": 1, "end_epoch": 2}, ValueError, "in steps.*and in epochs.*one of the two"),
    ],
)
@pytest.mark.parametrize("schedule", [Plan, PolynomialSchedule, ConstantSchedule])
def test_plans_that_make_no_sense(schedule, arguments, error, message):
    with pytest.raises(error, match=message):
        schedule(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"power": 0}, ValueError, "power=0.*above 0"),
        ({"power": "3"}, TypeError, "power='3'"),
        ({"initial_sparsity": -0.1}, ValueError, "initial_sparsity=-0.1.*at least 0"),
        ({"initial_sparsity": 1.5}, ValueError, "initial_sparsity=1.5.*at most 1"),
    ],
)
def test_curves_that_make_no_sense(arguments, error, message):
    with pytest.raises(error, match=message):
        PolynomialSchedule(**arguments)


def test_curves():
    assert PolynomialSchedule(1, 9, initial_sparsity=0.2, power=2).curve(0.8) == (0.2, 2.0)
    assert PolynomialSchedule(1, 9).plan == ConstantSchedule(1, 9).plan == Plan(1, 9)
    assert ConstantSchedule().curve(0.8) == (0.8, 1.0)
    with pytest.raises(ValueError, match=r"initial_sparsity=0.5.*at most 0.4"):
        PolynomialSchedule(initial_sparsity=0.5).curve(0.4)
