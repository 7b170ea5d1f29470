"""The rows that run in `make test`."""

import itertools

import numpy as np
import pytest
from _rows import chosen, mark_the_slow_rows, places


def grid(**sizes):
    places = itertools.product(*map(range, sizes.values()))
    return [dict(zip(sizes, row, strict=True)) for row in places]


@pytest.mark.parametrize("sizes", [(1,), (5,), (2, 2), (3, 4), (27, 9), (2, 3, 4)])
def test_every_value_comes_once_in_as_few_rows_as_the_longest_list_has(sizes):
    rows = grid(**{f"axis {place}": size for place, size in enumerate(sizes)})
    kept = [rows[position] for position in chosen(rows)]
    assert len(kept) == max(sizes)
    for axis, size in zip(rows[0], sizes, strict=True):
        assert {row[axis] for row in kept} == set(range(size))


def test_values_whose_diagonal_is_missing_come_in_another_row():
    rows = [row for row in grid(a=2, b=2) if row != {"a": 1, "b": 1}]
    assert [rows[position] for position in chosen(rows)] == [
        {"a": 0, "b": 0},
        {"a": 0, "b": 1},
        {"a": 1, "b": 0},
    ]


@pytest.mark.parametrize(
    ("number", "kept"), [(1, [0]), (2, [0, 9]), (3, [0, 4, 9]), (20, [*range(10)])]
)
def test_a_number_of_rows_spreads_over_the_list(number, kept):
    assert chosen(grid(a=10), number) == kept


def test_values_are_known_by_the_object():
    one, other = np.zeros(2), np.zeros(2)
    rows = [{"a": one, "b": "x"}, {"a": one, "b": "y"}, {"a": other, "b": "x"}]
    assert places(rows) == [{"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}]


class Item:
    def __init__(self, name, place=None, **markers):
        self.nodeid, self.markers = f"test_{name}[{place}]", markers
        if place is not None:
            self.callspec = type("Spec", (), {"params": {"a": place}})

    def get_closest_marker(self, name):
        return self.markers.get(name)

    def add_marker(self, marker):
        self.markers[marker.name] = marker


def test_rows_that_are_slow_by_themselves_do_not_count():
    slow, two = pytest.mark.slow.mark, pytest.mark.fast_rows(2).mark
    rows = [Item("one", place, fast_rows=two) for place in range(5)]
    rows[0].markers["slow"] = rows[4].markers["slow"] = slow
    others = [Item("other", place) for place in range(3)]
    alone = Item("alone", fast_rows=two)
    mark_the_slow_rows([*rows, *others, alone])
    assert [row.get_closest_marker("slow") is None for row in rows] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert not any(item.get_closest_marker("slow") for item in (*others, alone))
