from types import SimpleNamespace

import pytest

from keras_kd._tables import aligned, row_named


def test_words_begin_at_the_left_and_numbers_end_at_the_right():
    table = aligned(["layer", "weights"], [["conv", "1 000"], ["embedding", "7"]])
    assert table.splitlines() == [
        "layer      weights",
        "conv         1 000",
        "embedding        7",
    ]


def test_a_last_column_of_words_leaves_no_spaces_behind():
    table = aligned(["layer", "note"], [["conv", ""], ["dense", "left alone"]], left=2)
    assert table.splitlines()[1:] == ["conv", "dense  left alone"]


def test_a_table_without_rows_is_its_header():
    assert aligned(["layer"], []) == "layer"


def test_rows_are_found_by_name():
    rows = [SimpleNamespace(name="teacher"), SimpleNamespace(name="student")]
    assert row_named(rows, "student") is rows[1]
    with pytest.raises(KeyError, match=r"the name 'other'.*one of 'teacher', 'student'"):
        row_named(rows, "other")
