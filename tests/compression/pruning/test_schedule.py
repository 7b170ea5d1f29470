import numpy as np
import pytest

from keras_kd.compression.pruning.schedule import Timetable


@pytest.mark.parametrize(
    ("timetable", "steps", "expected"),
    [
        (Timetable(), 100, (0, 75, 1)),
        (Timetable(), 8, (0, 6, 1)),
        (Timetable(), 1, (0, 1, 1)),
        (Timetable(begin_step=40), 80, (40, 70, 1)),
        (Timetable(), 4000, (0, 3000, 30)),
        # TF-MOT's default frequency, which misses a short training: one update is left, the last.
        (Timetable(frequency=100), 12, (9, 9, 100)),
        (Timetable(0, 10), 5, (0, 10, 1)),
        (Timetable(0, 250), 5, (0, 250, 2)),
        (Timetable(0, 10, 4), 50, (2, 10, 4)),
        (Timetable(np.int64(0), np.int32(10), np.int8(4)), 50, (2, 10, 4)),
    ],
)
def test_the_last_update_falls_on_the_last_step(timetable, steps, expected):
    within = timetable.within(steps)
    assert (within.begin_step, within.end_step, within.frequency) == expected
    assert (within.end_step - within.begin_step) % within.frequency == 0


def test_training_that_ends_before_pruning_begins():
    with pytest.raises(ValueError, match=r"training of 5 steps with begin_step=10.*lower"):
        Timetable(begin_step=10).within(5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, None, None), ValueError, "begin_step=-1.*at least 0"),
        ((5, 5, None), ValueError, "end_step=5.*at least 6"),
        ((0, 5, 0), ValueError, "frequency=0.*at least 1"),
        ((0.5, None, None), TypeError, "begin_step=0.5.*whole number"),
        ((0, True, None), TypeError, "end_step=True.*whole number"),
    ],
)
def test_steps_that_make_no_sense(arguments, error, message):
    with pytest.raises(error, match=message):
        Timetable(*arguments)
