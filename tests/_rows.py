"""Which rows of a parametrized test run in `make test` (the marker `fast_rows`)."""

import itertools

import pytest


def mark_the_slow_rows(items):
    """Mark the rows that `fast_rows` leaves out as slow.

    `@pytest.mark.fast_rows` keeps as few rows as bring every value of every parameter once,
    `@pytest.mark.fast_rows(3)` three of these, from the first to the last. Rows that are slow by
    themselves do not count. On a module (`pytestmark`) it holds for each of its tests.
    """
    for _, rows in itertools.groupby(items, lambda item: item.nodeid.split("[")[0]):
        rows = [row for row in rows if row.get_closest_marker("slow") is None]
        marker = rows[0].get_closest_marker("fast_rows") if rows else None
        if marker and hasattr(rows[0], "callspec"):
            fast = chosen(places([row.callspec.params for row in rows]), *marker.args)
            for position in set(range(len(rows))) - set(fast):
                rows[position].add_marker(pytest.mark.slow)


def places(rows):
    """For each row, which of its values each parameter has, in the order of their first rows.

    Values may be arrays, which have no order and no hash: they are known by the object.
    """
    known = {name: {} for name in rows[0]}
    return [
        {name: known[name].setdefault(id(value), len(known[name])) for name, value in row.items()}
        for row in rows
    ]


def chosen(rows, number=None):
    """The positions of the rows to keep; a row is a dict of places in the lists of values."""
    sizes = {name: 1 + max(row[name] for row in rows) for name in rows[0]}

    def off_the_diagonal(position):
        row = rows[position]
        longest = max(sizes, key=sizes.get)
        return sum(row[name] != row[longest] % size for name, size in sizes.items())

    kept, seen = [], set()
    for position in sorted(range(len(rows)), key=off_the_diagonal):
        values = set(rows[position].items())
        if not values <= seen:
            kept.append(position)
            seen |= values
    kept.sort()
    if number is None or number >= len(kept):
        return kept
    return [kept[round(place * (len(kept) - 1) / max(number - 1, 1))] for place in range(number)]
