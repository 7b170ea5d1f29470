import pytest

from keras_kd import _memory
from keras_kd._memory import check_expansion, most_alive, most_result_bytes, size_of

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30


@pytest.mark.parametrize(
    ("declared", "stored"), [(64 * MEBIBYTE, 0), (100 * MEBIBYTE, MEBIBYTE), (0, 0)]
)
def test_what_is_in_proportion(declared, stored):
    check_expansion("it", declared, stored)


@pytest.mark.parametrize(
    ("declared", "stored"), [(64 * MEBIBYTE + 1, 0), (101 * MEBIBYTE, MEBIBYTE)]
)
def test_what_is_not(declared, stored):
    with pytest.raises(ValueError, match=f"it declares {declared} bytes, of which {stored}"):
        check_expansion("it", declared, stored)


def test_what_grows_takes_half_of_the_free_memory_and_what_is_stored_all_of_it(monkeypatch):
    monkeypatch.setattr(_memory, "free_bytes", lambda: 4 * GIBIBYTE)
    check_expansion("it", 2 * GIBIBYTE, GIBIBYTE)
    check_expansion("it", 4 * GIBIBYTE, 4 * GIBIBYTE)
    for declared, stored in ((2 * GIBIBYTE + 1, GIBIBYTE), (4 * GIBIBYTE + 1, 5 * GIBIBYTE)):
        with pytest.raises(ValueError, match="and 4294967296 bytes of memory are free"):
            check_expansion("it", declared, stored)


@pytest.mark.parametrize(
    ("free", "most"), [(GIBIBYTE, 1), (64 * GIBIBYTE, 4), (1024 * GIBIBYTE, 8)]
)
def test_results_take_a_part_of_the_free_memory(free, most, monkeypatch):
    monkeypatch.setattr(_memory, "free_bytes", lambda: free)
    assert most_result_bytes() == most * GIBIBYTE


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [
        ((None, 3, 4), "float32", 48),
        ((2, -1), "float16", 4),
        ((), "int64", 8),
        ((5,), "bool", 5),
        ((5,), "float8_e4m3fn", 5),
        ((0, 7), "int8", 0),
    ],
)
def test_size(shape, dtype, size):
    assert size_of(shape, dtype) == size


def test_results_go_after_their_last_use():
    chain = [(f"step {i}", [i], {i + 1: 10}, 0) for i in range(100)]
    assert most_alive({0: 10}, chain, [100]) == (20, "step 0")
    # A branch that waits, something inside a step, and outputs that stay.
    steps = [
        ("left", ["x"], {"left": 10}, 0),
        ("right", ["x"], {"right": 1}, 100),
        ("sum", ["left", "right"], {"sum": 7}, 0),
    ]
    assert most_alive({"x": 5}, steps, ["sum"]) == (116, "right")
    apart = [(str(i), ["x"], {i: 10}, 0) for i in range(4)]
    assert most_alive({"x": 1}, apart, []) == (11, "0")
    assert most_alive({"x": 1}, apart, range(4)) == (41, "3")
