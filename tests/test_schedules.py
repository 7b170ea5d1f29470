"""Numbers that change with the step."""

import doctest
import re

import keras
import pytest
import tensorflow as tf

from keras_kd import schedules
from keras_kd.schedules import check_schedule, value_at, warm_up


@keras.saving.register_keras_serializable("tests")
def halved(step):
    return 4.0 / (1.0 + keras.ops.cast(step, "float32"))


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(schedules).failed == 0
    assert doctest.testmod(schedules).attempted > 0


def test_a_number_needs_no_step():
    assert value_at(check_schedule("temperature", 3, above=0, fix="use 4"), None) == 3.0


@pytest.mark.parametrize(
    "schedule", [halved, keras.optimizers.schedules.PolynomialDecay(4.0, 4, 0.0)]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_schedule_is_asked_at_the_step(schedule, compiled):
    assert check_schedule("temperature", schedule, above=0, fix="use 4") is schedule
    read = tf.function(lambda step: value_at(schedule, step), jit_compile=compiled)
    assert float(read(tf.constant(0, "int64"))) == 4.0
    later = read(tf.constant(1, "int64"))
    assert later.dtype == "float32"
    assert float(later) == pytest.approx(2.0 if schedule is halved else 3.0)


def test_a_schedule_without_a_step_is_told():
    with pytest.raises(ValueError, match=r"without a step.*train with keras_kd.Distiller"):
        value_at(halved, None)


def test_a_schedule_that_starts_out_of_bounds():
    with pytest.raises(ValueError, match=r"Received temperature at step 0=0\.0.*above 0.*use 4"):
        check_schedule("temperature", warm_up(10), above=0, fix="use 4")


@pytest.mark.parametrize("answer", ["warm", None])
def test_a_function_that_gives_no_number(answer):
    message = rf"returns {re.escape(repr(answer))} for step 0.*a function from the step to a number"
    with pytest.raises(TypeError, match=message):
        check_schedule("temperature", lambda step: answer, above=0, fix="use 4")


@pytest.mark.parametrize("steps", [0, -1])
def test_a_warm_up_takes_a_step_at_least(steps):
    with pytest.raises(ValueError, match=r"Received steps=.*at least 1.*count the updates"):
        warm_up(steps)


@pytest.mark.parametrize("schedule", [2.5, halved, warm_up(10, 3.0)])
def test_configurations_round_trip(schedule):
    again = schedules.deserialize(schedules.serialize(schedule))
    step = tf.constant(5, "int64")
    assert float(value_at(again, step)) == float(value_at(schedule, step))
