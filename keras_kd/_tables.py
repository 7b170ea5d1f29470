"""Tables in plain text, for what `print` shows of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_kd._checks import problem


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table whose columns are as wide as their longest cell.

    Args:
        header: the names of the columns.
        rows: cells, as many in each row as there are columns.
        left: how many of the first columns hold words and begin at the left; the others hold
            numbers and end at the right.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, cells)) for cells in columns]
    lines = []
    for cells in [header, *rows]:
        padded = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def row_named(rows: Sequence[Any], name: str) -> Any:
    """The row whose attribute `name` is `name`.

    Raises:
        KeyError: if there is none.
    """
    for row in rows:
        if row.name == name:
            return row
    names = ", ".join(repr(row.name) for row in rows)
    raise problem(f"the name {name!r}", f"one of {names}", "use one of these names", kind=KeyError)
