"""Plots of measurements, as SVG that takes its ink from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from keras_kd._checks import problem
from keras_kd.evaluation.extra import report_module
from keras_kd.evaluation.table import count, percent, tenths

if TYPE_CHECKING:
    from keras_kd.evaluation.comparison import Measurement

# Readable on white and on near-black, and told apart by colour-blind eyes (after Wong, 2011).
_BLUE, _ORANGE, _GREEN, _ROSE = "#3d8fd1", "#e08214", "#1fa187", "#cc79a7"
_COLOURS = (_BLUE, _ORANGE, _GREEN, _ROSE)
_MARKERS = "osD^vP"
# Stands for the page's text colour until the SVG is written; no other ink may be the same.
_INK = "#123456"
# Narrow, so that on a phone the letters stay readable.
_WIDTH_INCHES = 4.8
_STYLE = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    # Letters stay letters: small files, text that can be searched and read aloud.
    "svg.fonttype": "none",
    # With a fixed salt the same data gives the same bytes.
    "svg.hashsalt": "keras_kd",
}


def accuracy_over_size(rows: Sequence[Measurement]) -> str:
    """Accuracy against bytes on a logarithmic axis, one point per model that has a file."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(True)
        axes.set_xscale("log")
        for index, row in enumerate(row for row in rows if row.bytes):
            axes.plot(
                row.bytes,
                100 * row.accuracy,
                _MARKERS[index % len(_MARKERS)],
                color=_COLOURS[index % len(_COLOURS)],
                markersize=9,
                label=row.name,
            )
        axes.margins(x=0.12, y=0.15)
        axes.set_xlabel("size of the .tflite in bytes (logarithmic)")
        axes.set_ylabel("accuracy in %")
        axes.xaxis.set_major_formatter(lambda size, _: count(size))
        axes.xaxis.set_minor_formatter(lambda size, _: "")
        figure.legend(loc="outside lower left", ncols=2, handletextpad=0.2)

    return _svg(draw, 4.4, "Accuracy over the size of the file")


def per_class(first: Measurement, second: Measurement, class_names: Sequence[str]) -> str:
    """The accuracy of two models on each class and on all, joined by a line per class."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(True, axis="x")
        names = ["all", *class_names]
        lefts = [100 * value for value in (first.accuracy, *first.accuracy_per_class)]
        rights = [100 * value for value in (second.accuracy, *second.accuracy_per_class)]
        places = range(len(names))
        axes.hlines(places, lefts, rights, color=_INK, alpha=0.4, linewidth=2)
        axes.plot(lefts, places, "o", color=_ORANGE, markersize=8, label=first.name)
        axes.plot(rights, places, "o", color=_BLUE, markersize=8, label=second.name)
        axes.set_yticks(places, names)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.invert_yaxis()
        axes.set_xlabel("accuracy in %")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2)

    height = 1.4 + 0.26 * len(class_names)
    return _svg(draw, height, f"Accuracy per class: {first.name} and {second.name}")


def share_of_teacher(teacher: Measurement, student: Measurement) -> str:
    """What the student keeps of the teacher: one bar per quantity, in percent of the teacher's."""
    quantities = [
        ("accuracy", "accuracy", lambda value: f"{percent(value)} %"),
        ("weights", "parameters", count),
        ("file", "bytes", lambda value: f"{count(value)} bytes"),
        ("file, gzip", "compressed_bytes", lambda value: f"{count(value)} bytes"),
        ("latency", "latency_microseconds", lambda value: f"{tenths(value)} µs"),
    ]
    bars = []
    for label, field, write in quantities:
        of_teacher, of_student = getattr(teacher, field), getattr(student, field)
        if of_teacher and of_student is not None:
            caption = f"{write(of_student)} of {write(of_teacher)}"
            bars.append((label, 100 * of_student / of_teacher, caption))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = [bar[0] for bar in bars]
        axes.barh(names, 100, height=0.42, color=_INK, alpha=0.10)
        axes.barh(names, [bar[1] for bar in bars], height=0.42, color=_BLUE)
        for place, (_, _, caption) in enumerate(bars):
            axes.text(0.8, place - 0.26, caption, va="bottom", fontsize=8.5)
        axes.invert_yaxis()
        axes.set_xlabel(f"{student.name}, in % of {teacher.name}")

    return _svg(draw, 0.9 + 0.55 * len(bars), f"{student.name} in percent of {teacher.name}")


def cost(baseline: Measurement, rows: Sequence[Measurement]) -> str:
    """What each change of `baseline` cost in accuracy and left of the compressed file.

    Raises:
        ValueError: if a row has no compressed size.
    """
    if any(row.compressed_bytes is None for row in (baseline, *rows)):
        raise ValueError(
            problem(
                "a measurement without compressed_bytes",
                "measurements of .tflite files",
                "compare converted models",
            )
        )

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        names = [row.name for row in rows]
        points = [100 * (row.accuracy - baseline.accuracy) for row in rows]
        kilobytes = [row.compressed_bytes / 1000 for row in rows]
        bars = left.barh(
            names, points, color=[_BLUE if point >= 0 else _ORANGE for point in points]
        )
        left.bar_label(bars, fmt="{:+.2f}", padding=3, fontsize=8.5)
        left.axvline(0, color=_INK, linewidth=0.8)
        # Room for the numbers beside the bars.
        room = 0.6 * (max(*points, 0) - min(*points, 0)) or 1
        left.set_xlim(min(*points, 0) - room, max(*points, 0) + room)
        left.set_xlabel("accuracy, points")
        bars = right.barh(names, kilobytes, color=_GREEN)
        right.bar_label(bars, fmt="{:.1f}", padding=3, fontsize=8.5)
        right.axvline(baseline.compressed_bytes / 1000, color=_INK, linewidth=0.8, linestyle=":")
        right.margins(x=0.2)
        right.set_xlabel("gzip, kilobytes")
        left.invert_yaxis()

    height = 0.9 + 0.42 * len(rows)
    return _svg(draw, height, f"Accuracy and compressed size against {baseline.name}")


def _svg(draw: Callable[[Any], None], height: float, label: str) -> str:
    """Run `draw` on a new figure and return it as an `<svg>` element for a page."""
    matplotlib = report_module("matplotlib")
    figures = report_module("matplotlib.figure")
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), label)


def _for_page(svg: str, label: str) -> str:
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Groups' names ("axes_1") would be there once per plot; nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    # The page decides how wide a plot is.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()
