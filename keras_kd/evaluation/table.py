"""A comparison as a table: for the terminal and for the report."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from keras_kd.evaluation.comparison import Comparison, Measurement

# Wide enough that no column is cut, also where the output is no terminal or a narrow one.
WIDTH = 116


def percent(share: float) -> str:
    """0.9745 as "97.45"."""
    return f"{100 * share:.2f}"


def whole_percent(share: float) -> str:
    """0.8 as "80"."""
    return f"{100 * share:.0f}"


def tenths(number: float) -> str:
    """8.64 as "8.6"."""
    return f"{number:,.1f}"


def count(number: float) -> str:
    """24256 as "24,256"."""
    return f"{number:,.0f}"


@dataclass(frozen=True)
class Column:
    """One column: which value, how it is headed, written and explained."""

    field: str
    heading: str
    unit: str
    write: Callable[[float], str]
    meaning: str

    def text(self, row: Measurement) -> str:
        """The cell of this column; a dash where the value does not apply."""
        value = getattr(row, self.field)
        return "-" if value is None or math.isnan(value) else self.write(value)


COLUMNS = (
    Column("accuracy", "accuracy", "%", percent, "share of test images it gets right"),
    Column("f1", "F1", "%", percent, "macro F1: precision and recall, averaged over the classes"),
    Column("agreement", "agrees", "%", percent, "share of images with the teacher's class chosen"),
    Column("parameters", "weights", "", count, "number of parameters"),
    Column("sparsity", "zeros", "%", whole_percent, "share of zeros in the kernels"),
    Column("bytes", "file", "bytes", count, "size of the .tflite"),
    Column("compressed_bytes", "gzip", "bytes", count, "size of the .tflite after gzip"),
    Column(
        "latency_microseconds",
        "latency",
        "µs",
        tenths,
        "median time for one image in LiteRT, one thread",
    ),
    Column("arena_bytes", "arena", "bytes", count, "working memory in TensorFlow Lite Micro"),
)


def used_columns(comparison: Comparison) -> list[Column]:
    """The columns in which at least one row has a value."""
    return [
        column
        for column in COLUMNS
        if any(getattr(row, column.field) is not None for row in comparison.rows)
    ]


def table(comparison: Comparison) -> Table:
    """The comparison as a `rich` table, `WIDTH` characters wide at most for names up to 24."""
    result = Table(
        title=f"{comparison.dataset}: {count(comparison.examples)} test images",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    columns = used_columns(comparison)
    result.add_column("model", overflow="fold")
    for column in columns:
        heading = f"{column.heading}\n{column.unit}" if column.unit else column.heading
        result.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        result.add_row(row.name, *(column.text(row) for column in columns))
    return result


def print_table(comparison: Comparison, console: Console) -> None:
    """Print the whole table, also where the console is narrower than it."""
    wide = Console(
        file=console.file,
        width=max(console.width, WIDTH),
        force_terminal=console.is_terminal,
        color_system=console.color_system,
    )
    wide.print(table(comparison))


def as_text(comparison: Comparison) -> str:
    """The table without colours, for logs."""
    text = io.StringIO()
    print_table(comparison, Console(file=text, width=WIDTH, color_system=None))
    return text.getvalue()
