import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from keras_kd.compression.pruning import _schedules
from keras_kd.compression.pruning._schedules import Schedule
from keras_kd.compression.pruning.schedule import Plan, Timetable, Training

ConstantSparsity = tfmot.sparsity.keras.ConstantSparsity
PolynomialDecay = tfmot.sparsity.keras.PolynomialDecay
PruningSchedule = tfmot.sparsity.keras.PruningSchedule


def updates(schedule, steps):
    """The sparsity of each step in which masks are chosen, by step; the first step is 1."""
    called = {step: schedule(tf.constant(step, tf.int64)) for step in range(1, steps + 1)}
    return {step: float(share) for step, (is_due, share) in called.items() if is_due}


def test_the_sparsity_grows_by_the_formula_of_zhu_and_gupta():
    received = updates(Schedule(0.1, 0.9, 3, Plan(4, 12)), 20)
    steps = np.arange(5, 13)
    expected = 0.9 + (0.1 - 0.9) * (1 - (steps - 4) / 8) ** 3
    assert list(received) == list(steps)
    np.testing.assert_allclose(list(received.values()), expected, atol=1e-6)
    in_tf_mot = updates(PolynomialDecay(0.1, 0.9, 4, 12, 3, frequency=1), 20)
    # TF-MOT begins one step earlier, at the initial sparsity.
    assert in_tf_mot.pop(4) == pytest.approx(0.1)
    assert received == pytest.approx(in_tf_mot)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (Plan(0, 10, frequency=4), [1, 2, 6, 10]),
        (Plan(3, 9, frequency=100), [4, 9]),
        (Plan(end_step=1), [1]),
        (Plan(5), []),
    ],
)
def test_the_first_and_the_last_update_are_never_missed(plan, expected):
    assert list(updates(Schedule(0.0, 0.5, 3, plan), 30)) == expected


def test_tf_mot_itself_misses_the_end():
    assert max(updates(PolynomialDecay(0.0, 0.5, 0, 150), 150).values()) < 0.49
    assert updates(PolynomialDecay(0.0, 0.5, 0, 99), 99) == {}


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize(
    ("given", "last", "share"),
    [
        (PolynomialDecay(0.2, 0.5, 0, 150, power=2), 150, 0.5),
        (ConstantSparsity(0.7, 10, 60), 60, 0.7),
    ],
)
def test_schedules_of_tf_mot_reach_their_end(given, last, share):
    received = updates(_schedules.completed(given), 200)
    assert max(received) == last
    assert received[last] == pytest.approx(share)


def test_a_constant_schedule_without_end_ends_with_the_training():
    schedule = _schedules.completed(ConstantSparsity(0.7, 10, frequency=5))
    assert schedule.is_open
    schedule.fix(Training(0, 0, 1, 50))
    assert updates(schedule, 60) == pytest.approx(dict.fromkeys([11, 15, 20, 25, 30, 35, 40], 0.7))


def test_a_compiled_step_sees_steps_that_are_fixed_later():
    schedule = Schedule(0.0, 0.5, 3, Plan())
    compiled = tf.function(schedule)
    assert not compiled(tf.constant(3, tf.int64))[0]
    schedule.fix(Training(0, 0, 2, 2))
    assert compiled(tf.constant(3, tf.int64))[0]
    schedule.fix(Training(0, 0, 200, 200))
    assert schedule.timetable == Timetable(0, 3, 1)


@pytest.mark.parametrize("plan", [Plan(2, 9, frequency=3), Plan(begin_epoch=1, end_epoch=4)])
def test_config_round_trip(plan):
    schedule = Schedule(0.1, 0.6, 2, plan)
    again = _schedules.from_config(_schedules.to_config(schedule))
    assert again.get_config() == schedule.get_config()
    schedule.fix(Training(0, 0, 5, 10))
    fixed = _schedules.from_config(_schedules.to_config(schedule))
    assert updates(fixed, 60) == updates(schedule, 60)


@tf_keras.saving.register_keras_serializable("test_schedules")
class Halves(PruningSchedule):
    """A user's own: half of the weights in every second step."""

    def __init__(self, every):
        self.every = every

    def __call__(self, step):
        return tf.equal(step % self.every, 0), tf.constant(0.5)

    def get_config(self):
        return {"every": self.every}


class Nested(Halves):
    """The same in the form of TF-MOT's own configs, and not registered."""

    def get_config(self):
        return {"class_name": "Nested", "config": {"every": self.every}}


def test_schedules_of_users_are_kept_and_made_again():
    schedule = _schedules.completed(Halves(2))
    assert isinstance(schedule, Halves)
    again = _schedules.from_config(_schedules.to_config(schedule))
    assert isinstance(again, Halves)
    assert again.every == 2


def test_a_schedule_that_is_not_registered_is_named():
    config = _schedules.to_config(Nested(4))
    with tf_keras.saving.custom_object_scope({"Nested": Nested}):
        assert _schedules.from_config(config).every == 4
    with pytest.raises(ValueError, match=r"schedule 'Nested'.*register_keras_serializable"):
        _schedules.from_config(config)


def test_tf_mot_itself_cannot_make_schedules_of_users_again():
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(tf_keras.layers.Dense(2), Nested(2))
    again = type(wrapper).from_config(wrapper.get_config())
    assert again.pruning_schedule == "Nested"
