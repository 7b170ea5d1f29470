"""The form of messages, and the checks that use it."""

import numpy as np
import pytest

from keras_kd._checks import check_choice, check_number, check_type, one_line, three_parts


def test_a_problem_is_one_line_in_three_parts():
    message = three_parts("epochs=-1", "a number above 0", "try 5")
    assert message == "Received epochs=-1. Expected a number above 0. To fix it: try 5."


def test_one_line():
    assert one_line(ValueError("first\n\tsecond \n")) == "first second"


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2.0), np.int64(3)])
def test_numbers_become_floats(value):
    number = check_number("size", value, above=0, fix="try 1")
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (0, {"above": 0}, "a finite number above 0"),
        (-0.1, {"at_least": 0.0}, "a finite number at least 0.0"),
        (2, {"at_least": 0, "at_most": 1}, "a finite number at least 0 and at most 1"),
        (float("inf"), {}, "a finite number"),
        (float("nan"), {"at_least": 0}, "a finite number at least 0"),
    ],
)
def test_numbers_out_of_bounds(value, bounds, expected):
    with pytest.raises(
        ValueError, match=rf"^Received size={value!r}\. Expected {expected}\. To fix it: try 1\.$"
    ):
        check_number("size", value, **bounds, fix="try 1")


@pytest.mark.parametrize("value", ["1", None, True, [1.0], 1j])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"Received size=.*Expected a finite number above 0\."):
        check_number("size", value, above=0, fix="try 1")


def test_choices():
    assert check_choice("colour", "red", ("red", "blue")) == "red"
    with pytest.raises(
        ValueError, match=r"Received colour='green'\. Expected one of 'red', 'blue'\."
    ):
        check_choice("colour", "green", ("red", "blue"))
    with pytest.raises(ValueError, match=r"Received colour=array\(\[1, 2\]\)"):
        check_choice("colour", np.array([1, 2]), ("red", "blue"))


def test_types():
    check_type("name", "text", str, "'text'")
    with pytest.raises(TypeError, match=r"^Received name=3\. Expected a str\. .*pass 'x'\."):
        check_type("name", 3, str, "'x'")
