import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_kd.teachers.stored.precision import (
    check_reach,
    check_values,
    from_steps,
    largest,
    rounded_down,
    rounded_up,
    to_steps,
)

few = settings(max_examples=60, deadline=None, derandomize=True)
within_half = st.floats(-65504.0, 65504.0)


@few
@given(st.lists(within_half, min_size=1, max_size=5))
def test_rounding_up_and_down_to_the_nearest_float16_on_that_side(numbers):
    values = np.array(numbers)
    up, down = rounded_up(values), rounded_down(values)
    assert up.dtype == down.dtype == np.float16
    assert (down <= values).all()
    assert (values <= up).all()
    # Nothing is between the two but what was rounded.
    assert (np.nextafter(down, up) == up).all()


@few
@given(within_half, within_half, st.floats(0.0, 1.0))
def test_steps_come_back_to_within_half_of_one(one, other, share):
    low = rounded_down(np.array([min(one, other)]))
    high = rounded_up(np.array([max(one, other)]))
    width = float(high[0]) - float(low[0])
    values = low.astype("float64")[:, None] + share * width
    back = from_steps(to_steps(values, low, high), low, high)
    assert back.dtype == np.float32
    rounding = 2.0**-22 * max(abs(float(low[0])), abs(float(high[0])))
    assert abs(back - values) <= width / 510 + rounding


def test_the_largest_of_each_dtype():
    assert largest("float16") == largest("uint8") == 65504.0
    assert largest("float32") == np.finfo("float32").max
    check_reach("x", "float16", np.array([[65504.0]]))
    with pytest.raises(ValueError, match=r"the value 65505 in 'x' of example 8 for dtype='fl"):
        check_reach("x", "float16", np.array([[0.0], [65505.0]]), first_example=7)


def test_the_shape_that_is_wanted_is_named():
    with pytest.raises(ValueError, match=r"shape \(2, 3\)\. Expected \(examples, 4, 5\)\."):
        check_values("x", (4, 5), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"Expected \(examples\)\."):
        check_values("x", (), np.zeros((2, 3)))
