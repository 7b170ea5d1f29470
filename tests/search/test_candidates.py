"""What is said where nothing fits, and the rows of the table."""

import numpy as np
import pytest

from keras_kd.devices import Device
from keras_kd.metrics import MEASURES
from keras_kd.search import Candidate, Cost, NothingFits
from keras_kd.search.candidates import table
from keras_kd.search.teaching import Examples, Judge

BOARD = Device(flash="64 KB", ram="8 KB")


def candidate(name, flash, arena, reason="", **values):
    cost = Cost(flash - 50_000, flash, arena, None, 1000)
    return Candidate(name, {}, cost, cost.misses(BOARD), reason, **values)


def test_the_nearest_exceeds_least():
    rows = [
        candidate("a", 90_000, 4000),
        candidate("b", 70_000, 9000),
        candidate("c", 60_000, 20_000),
    ]
    error = NothingFits(BOARD, rows)
    assert error.nearest is rows[1]
    assert "the nearest, b, takes flash 68.4 KB of 64.0 KB, RAM 8.8 KB of 8.0 KB" in str(error)
    text = "4,464 bytes more flash, or student=build, a family with fewer layers and weights; and"
    assert f"{text} 808 bytes more RAM" in str(error)
    narrowed = NothingFits(BOARD, rows, ["'lstm' (LSTM)", "'out' (Dense)"])
    assert "flash, or student=build with a smaller 'lstm' (LSTM), which" in str(narrowed)


def test_a_runtime_that_is_too_large_alone_is_named():
    board = Device(flash="40 KB")
    cost = Cost(5000, 55_000, 100, None, 10)
    error = NothingFits(board, [Candidate("a", {}, cost, cost.misses(board))])
    assert "14,040 bytes more flash (TFLM and the kernels of its operators alone take" in str(error)


def test_students_without_a_file_say_why():
    rows = [Candidate("a", {}, None, {}, "an operator is missing")]
    error = NothingFits(BOARD, rows)
    assert error.nearest is None
    assert "none of which can be converted: an operator is missing. Expected" in str(error)
    whole = "Received operators GELU. Expected others. To fix it: replace gelu by relu."
    error = NothingFits(BOARD, [Candidate("a", {}, None, {}, whole)])
    assert "converted: operators GELU. Expected others. To fix it: replace gelu" in str(error)


def test_a_student_that_fits_but_has_no_file_is_no_matter_of_size():
    rows = [candidate("a", 90_000, 4000), candidate("b", 60_000, 4000, "outputs differ")]
    assert not rows[1].fits
    assert "none of which can be converted: outputs differ." in str(NothingFits(BOARD, rows))


def test_a_student_that_was_not_tried_is_no_reason():
    assert "the nearest, a, takes" in str(
        NothingFits(BOARD, [candidate("a", 90_000, 4000), candidate("b", 60_000, 4000)])
    )


def test_a_file_that_took_more_than_its_untrained_form_is_what_counts():
    before, after = (Cost(size, size, 10, None, 10) for size in (60_000, 66_000))
    row = Candidate("a", {}, before, after.misses(BOARD), file_cost=after)
    assert "a, takes flash 64.5 KB of 64.0 KB" in str(NothingFits(BOARD, [row]))


@pytest.mark.parametrize("target", ["android", "web"])
def test_latency_is_a_limit(target):
    device = Device(latency=2.0, target=target)
    cost = Cost(1000, 1000, None, 3.0, 10)
    assert cost.misses(device) == {"latency": 1.5}
    rows = [Candidate("a", {}, cost, cost.misses(device))]
    assert "latency 3 of 2 ms" in str(NothingFits(device, rows))


def test_the_table_has_a_row_for_each():
    judge = Judge(
        Examples(np.zeros(2), np.zeros(2)), MEASURES["classification"][0], "classification"
    )
    rows = [candidate("a", 90_000, 4000), candidate("b", 60_000, 4000, value=0.5, epochs=3)]
    lines = str(table(rows, judge, BOARD)).splitlines()
    assert lines[0].split()[0] == "student"
    assert lines[1].split()[0] == "a"
    assert "flash x1.37" in lines[1]
    assert lines[2].split()[-4:] == ["fits", "3", "50.00", "-"]
