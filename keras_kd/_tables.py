"""Results that print as tables and show as HTML in notebooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from keras_kd._checks import problem
from keras_kd._json import json_value


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


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as tables show it: "[1, any, 3]"."""
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


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


@dataclass(frozen=True)
class Table:
    """A table of texts; see `aligned`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def __str__(self) -> str:
        return aligned(self.header, self.rows, left=self.left)

    def html(self) -> str:
        """The same as an HTML table."""
        lines = [self._html_row("th", self.header)]
        lines += [self._html_row("td", row) for row in self.rows]
        return "\n".join(["<table>", *lines, "</table>"])

    def _html_row(self, tag: str, cells: Sequence[str]) -> str:
        sides = ["left" if number < self.left else "right" for number in range(len(cells))]
        return "".join(
            [
                "<tr>",
                *(
                    f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>'
                    for side, cell in zip(sides, cells, strict=True)
                ),
                "</tr>",
            ]
        )


class Report(ABC):
    """A result: `print` shows tables, notebooks show them as HTML, programs read the numbers.

    A subclass is a dataclass. It defines `_parts`, and `_records` for its main table.
    """

    @abstractmethod
    def _parts(self) -> Sequence[Table | str]:
        """What `print` shows, from top to bottom; an empty text is an empty line."""

    @abstractmethod
    def _records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the main table: values by the names of the columns."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types; NaN and infinity become None."""
        return json_value(self)

    def to_dataframe(self) -> Any:
        """The main table as a `pandas.DataFrame`, with numbers instead of formatted texts.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            import pandas  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise problem(
                "a result as a DataFrame without pandas",
                "the package pandas",
                "pip install pandas, or use to_dict()",
                kind=ImportError,
            ) from error
        return pandas.DataFrame.from_records([dict(record) for record in self._records()])

    def __str__(self) -> str:
        return "\n".join(map(str, self._parts()))

    def _repr_html_(self) -> str:
        return "\n".join(
            part.html() if isinstance(part, Table) else f"<pre>{escape(part)}</pre>"
            for part in self._parts()
            if part
        )
