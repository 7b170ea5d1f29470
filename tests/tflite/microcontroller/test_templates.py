import numpy as np
import pytest

from keras_kd.tflite.microcontroller.templates import fill, lines_of, literal, string_literal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int8(-128), "-128"),
        (np.bool_(True), "1"),
        (np.float32(1), "1.0f"),
        (np.float32(-0.1), "-0.100000001f"),
        (np.float32(1e30), "1.00000002e+30f"),
    ],
)
def test_numbers(value, expected):
    assert literal(value) == expected


def test_floats_read_back_as_the_same_number():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert all(np.float32(literal(value).rstrip("f")) == value for value in values)


def test_strings():
    assert string_literal('a"b\\c??/é\n') == '"a\\042b\\134c\\077\\077/\\303\\251\\012"'


def test_lines_are_no_longer_than_100_characters():
    text = lines_of(map(str, range(1000)), "    ")
    assert max(map(len, text.splitlines())) <= 100
    assert eval(f"[{text}]") == list(range(1000))
    assert all(line.startswith("    ") for line in text.splitlines())


def test_a_gap_that_is_not_filled_is_an_error():
    with pytest.raises(KeyError, match="size"):
        fill("data.cc", name="model")
