"""The comparison as a page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keras_kd._files import replacing
from keras_kd._version import __version__
from keras_kd.evaluation import plots
from keras_kd.evaluation.extra import report_module
from keras_kd.evaluation.table import count, percent, tenths, used_columns
from keras_kd.tflite.microcontroller.operators import flash_note

if TYPE_CHECKING:
    from keras_kd.evaluation.comparison import Comparison

# More would make a plot longer than a screen.
_MOST_CLASSES = 40
_TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Figure:
    """One plot in a report.

    Attributes:
        title: what it shows, in a few words.
        caption: how to read it, in a sentence or two.
        svg: an `<svg>` element, from `keras_kd.evaluation.plots`.
    """

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Highlight:
    """One number in large letters, and in a few words what it is."""

    value: str
    meaning: str


@dataclass(frozen=True)
class Page:
    """What a report says besides the table.

    Attributes:
        title: the heading of the page.
        introduction: a paragraph below it.
        highlights: the few numbers to take away.
        figures: the plots, in order.
        notes: paragraphs below the plots.
    """

    title: str
    introduction: str = ""
    highlights: Sequence[Highlight] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()


def default_page(comparison: Comparison) -> Page:
    """A page with the numbers and plots that make sense for any comparison."""
    return Page(
        title=f"Models on {comparison.dataset}",
        introduction=(
            "Every accuracy was measured by running the model itself on "
            f"{count(comparison.examples)} test examples; a .tflite runs in LiteRT, as on the "
            "device."
        ),
        highlights=_highlights(comparison),
        figures=_figures(comparison),
        notes=_notes(comparison),
    )


def _notes(comparison: Comparison) -> list[str]:
    notes = ["Times are of this computer's processor, not of a phone or a microcontroller."]
    if any(row.arena_bytes is not None for row in comparison.rows):
        notes.append(flash_note())
    return notes


def _highlights(comparison: Comparison) -> list[Highlight]:
    best = max(comparison.rows, key=lambda row: row.accuracy)
    highlights = [Highlight(f"{percent(best.accuracy)} %", f"right, by {best.name}")]
    files = [row for row in comparison.rows if row.bytes is not None]
    if files:
        smallest = min(files, key=lambda row: row.bytes)
        fastest = min(files, key=lambda row: row.latency_microseconds)
        highlights += [
            Highlight(f"{smallest.bytes / 1000:,.1f} kB", f"the smallest file, {smallest.name}"),
            Highlight(
                f"{tenths(fastest.latency_microseconds)} µs",
                f"the fastest file, {fastest.name}, for one example on one thread",
            ),
        ]
    return highlights


def _figures(comparison: Comparison) -> list[Figure]:
    files = [row for row in comparison.rows if row.bytes is not None]
    first, last = comparison.rows[0], comparison.rows[-1]
    figures = []
    if files:
        figures.append(
            Figure(
                "Accuracy over size",
                "Further up is more accurate, further left is smaller.",
                plots.accuracy_over_size(files),
            )
        )
    if first is not last and len(comparison.class_names) <= _MOST_CLASSES:
        figures.append(
            Figure(
                f"“{first.name}” and “{last.name}”",
                "The accuracy of the first and of the last model on each class.",
                plots.per_class(first, last, comparison.class_names),
            )
        )
    if len(files) > 1:
        figures.append(
            Figure(
                f"Against “{files[0].name}”",
                "Points of accuracy won or lost, and what is left of the compressed file (the "
                "dotted line is its size before).",
                plots.cost(files[0], files[1:]),
            )
        )
    return figures


def save_report(comparison: Comparison, path: str | Path, page: Page | None = None) -> Path:
    """Write the comparison as one HTML file and return its path.

    Args:
        comparison: what the table shows.
        path: where the file goes.
        page: the texts and plots around the table. None: `default_page(comparison)`.

    Raises:
        ModuleNotFoundError: without the `report` extra (jinja2, matplotlib).
    """
    jinja2 = report_module("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    html = template.render(
        page=page or default_page(comparison),
        comparison=comparison,
        columns=used_columns(comparison),
        examples=count(comparison.examples),
        version=__version__,
    )
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path
