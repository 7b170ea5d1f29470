"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._files import replacing
from keras_kd.evaluation import plots
from keras_kd.evaluation.comparison import Column, Comparison, Measurement, count
from keras_kd.evaluation.extra import report_module
from keras_kd.tflite.microcontroller.operators import flash_note

_TEMPLATE = Path(__file__).with_name("report.html")
# A confusion matrix of more classes is too small to read on a phone.
_MOST_CONFUSED = 20
# Less than a picture, or more than a page should hold.
_SMALLEST_SIDE, _LARGEST_SIDE = 8, 512


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
    """What a report contains besides the table.

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


def default_page(comparison: Comparison, title: str | None = None, x: Any = None) -> Page:
    """A page with the numbers and plots that make sense for any comparison.

    Args:
        comparison: what was measured.
        title: the heading. None: it names the data.
        x: the test examples. If they are images, those are shown on which two models disagree.
    """
    if title is None:
        title = f"Models on {comparison.name}" if comparison.name else "Models side by side"
    return Page(
        title=title,
        introduction=(
            "Every number was measured by running the model itself on "
            f"{count(comparison.examples)} test examples; a .tflite runs in LiteRT, as on the "
            "device."
        ),
        highlights=_highlights(comparison),
        figures=_figures(comparison, x),
        notes=_notes(comparison),
    )


def save_report(
    comparison: Comparison,
    path: str | Path,
    page: Page | None = None,
    *,
    title: str | None = None,
    x: Any = None,
) -> Path:
    """Write the comparison as one HTML file that needs no other file, and return its path.

    Args:
        comparison: what the table shows.
        path: where the file goes.
        page: the texts and plots around the table. None: `default_page(comparison, title, x)`.
        title: the heading of the default page.
        x: the test examples, of which the default page shows some.

    Raises:
        ModuleNotFoundError: without the `report` extra (jinja2, matplotlib).
    """
    jinja2 = report_module("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    html = template.render(
        page=page or default_page(comparison, title, x),
        comparison=comparison,
        columns=comparison.columns,
        examples=count(comparison.examples),
        tasks=sorted(set(comparison.tasks.values())),
    )
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def figure_over_cost(comparison: Comparison, quality: Column, key: str) -> Figure | None:
    """A measure over a cost; None where no model has the cost.

    Args:
        comparison: what was measured.
        quality: one of `comparison.measures`.
        key: "bytes" or "latency_microseconds".
    """
    cost = next((column for column in comparison.columns if column.key == key), None)
    if cost is None:
        return None
    return Figure(
        f"{_capital(quality.heading)} over {'size' if key == 'bytes' else 'latency'}",
        f"Further {'up' if quality.higher_is_better else 'down'} is better, further left is "
        f"{'smaller' if key == 'bytes' else 'faster'}. Bars are intervals of 95 %. The dashed line "
        "joins the models than which no other is both better and cheaper.",
        plots.quality_over(comparison.rows, quality, cost),
    )


def figures_of_classes(
    comparison: Comparison, first: Measurement, second: Measurement, title: str, caption: str
) -> list[Figure]:
    """Two models on each class, and their confusion matrices; nothing where there are no classes.

    Args:
        comparison: what was measured.
        first, second: the two rows.
        title: what the figure of the classes is called.
        caption: what it shows.
    """
    if first.per_class is None or second.per_class is None or first is second:
        return []
    names = comparison.class_names
    figures = [
        Figure(title, caption, plots.per_class(first, second, names, comparison.measures[0]))
    ]
    if first.confusion is not None and len(names) <= _MOST_CONFUSED:
        figures.append(
            Figure(
                "What is taken for what",
                "Rows are the true classes, columns the chosen ones. Blue is right, orange is "
                "wrong; a darker cell is a larger share of its row.",
                plots.confusions([first, second], names),
            )
        )
    return figures


def figure_of_reliability(rows: Sequence[Measurement]) -> Figure | None:
    """How far confidence and accuracy are apart; None where no model gives probabilities."""
    known = [row for row in rows if row.reliability]
    if not known:
        return None
    return Figure(
        "Confidence and accuracy",
        "On the dotted line a model is right as often as its confidence predicts. Below it, the "
        "model is too sure. Larger points represent more examples. ECE in the table is the mean "
        "distance from the line.",
        plots.reliability(known),
    )


def figure_of_disagreements(comparison: Comparison, x: Any) -> Figure | None:
    """Images on which the two models of `comparison.pair` disagree.

    None where they do not, or where the examples are no images.

    Args:
        comparison: what was measured.
        x: its test examples.
    """
    if isinstance(x, Mapping | list | tuple) and len(x) == 1:
        (x,) = x.values() if isinstance(x, Mapping) else x
    if comparison.pair is None or not comparison.disagreements or not _are_images(x):
        return None
    first, second = comparison.pair
    names = comparison.class_names

    def named(number: int) -> str:
        return names[number] if names else str(number)

    texts = [
        (f"true: {named(each.label)}\n" if each.label is not None else "")
        + f"{named(each.first)} / {named(each.second)}"
        for each in comparison.disagreements
    ]
    shown = np.stack([x[each.example] for each in comparison.disagreements])
    caption = (
        f"Above each: what “{first}” chooses / what “{second}” chooses. Those come first of which "
        f"“{first}” is surest."
    )
    label = f"Images for which {first} and {second} choose different classes: " + "; ".join(
        text.replace("\n", ", ") for text in texts
    )
    return Figure("Where they disagree", caption, plots.pictures(shown, texts, label))


def _are_images(x: Any) -> bool:
    """Whether examples can be shown: height and width, and 1 or 3 channels or none."""
    shape = getattr(x, "shape", ())
    is_flat = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    return is_flat and all(_SMALLEST_SIDE <= side <= _LARGEST_SIDE for side in shape[1:3])


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if any(row.latency_microseconds is not None for row in comparison.rows):
        notes.append("Times are of this computer's processor, not of a phone or a microcontroller.")
    if any(row.arena_bytes is not None for row in comparison.rows):
        notes.append(flash_note())
    return notes


def _highlights(comparison: Comparison) -> list[Highlight]:
    highlights = []
    if (best := comparison.best()) is not None:
        column = comparison.measures[0]
        unit = f" {column.unit}" if column.unit else ""
        interval = column.interval(best)
        meaning = f"{column.heading} of {best.name}, the best"
        if interval:
            meaning += f" (95 % interval {interval}{unit})"
        highlights.append(Highlight(f"{column.text(best)}{unit}", meaning))
    if files := [row for row in comparison.rows if row.bytes is not None]:
        smallest = min(files, key=lambda row: row.known("bytes"))
        highlights.append(
            Highlight(
                f"{smallest.known('bytes') / 1000:,.1f} kB", f"the smallest file, {smallest.name}"
            )
        )
    if timed := [row for row in comparison.rows if row.latency_microseconds is not None]:
        fastest = min(timed, key=lambda row: row.known("latency_microseconds"))
        highlights.append(
            Highlight(
                f"{fastest.latency_microseconds:,.1f} µs",
                f"the fastest file, {fastest.name}, for one example on one thread",
            )
        )
    return highlights


def _figures(comparison: Comparison, x: Any) -> list[Figure]:
    baseline = comparison[comparison.baseline]
    others = [row for row in comparison.rows if row is not baseline]
    figures = [
        figure_over_cost(comparison, quality, key)
        for quality in comparison.mains
        for key in ("bytes", "latency_microseconds")
    ]
    if comparison.pair is not None:
        figures += [figure_of_differences(each, baseline, others) for each in comparison.mains]
        first, second = (comparison[name] for name in comparison.pair)
        figures += figures_of_classes(
            comparison,
            first,
            second,
            f"“{first.name}” and “{second.name}”",
            "The accuracy of both models on each class.",
        )
        figures += [
            figure_of_reliability([first, second]),
            figure_of_disagreements(comparison, x),
        ]
    return [figure for figure in figures if figure is not None]


def figure_of_differences(
    quality: Column, baseline: Measurement, rows: Sequence[Measurement]
) -> Figure | None:
    """How much better or worse than the baseline the other models are.

    None where differences were not measured.
    """
    rows = [row for row in rows if quality.difference(row)]
    if not rows:
        return None
    caption = (
        f"Bars are intervals of 95 % for the difference of {quality.heading}, computed on pairs. A "
        "dot marks a difference that is clear, a dash one that may be chance."
    )
    if all(row.compressed_bytes for row in (baseline, *rows)):
        caption += " Beside it the compressed file; the dotted line is that of the baseline."
    return Figure(
        f"{_capital(quality.heading)} against “{baseline.name}”",
        caption,
        plots.differences(baseline, rows, quality),
    )


def _capital(heading: str) -> str:
    """A heading at the beginning of a title; the name of an output stays as it is."""
    return heading if ":" in heading else heading[:1].upper() + heading[1:]
