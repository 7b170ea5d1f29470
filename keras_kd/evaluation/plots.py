"""Plots of measurements, as SVG that takes its ink from the page around it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from keras_kd._checks import problem
from keras_kd.evaluation.extra import report_module

if TYPE_CHECKING:
    import numpy as np

    from keras_kd.evaluation.comparison import Column, Measurement

__all__ = [
    "confusions",
    "differences",
    "log_ticks",
    "pareto_front",
    "per_class",
    "pictures",
    "quality_over",
    "reliability",
    "share_of_teacher",
]

# Readable on white and on near-black, and distinguished by colour-blind eyes (after Wong, 2011).
_BLUE, _ORANGE, _GREEN, _ROSE = "#3d8fd1", "#e08214", "#1fa187", "#cc79a7"
_COLOURS = (_BLUE, _ORANGE, _GREEN, _ROSE)
_MARKERS = "osD^vP"
# Stands for the page's text colour until the SVG is written; no other ink may be the same.
_INK = "#123456"
# Narrow, so that on a phone the letters stay readable.
_WIDTH_INCHES = 4.3
# A cell of more classes has no room for its number.
_MOST_NUMBERED = 12
_PICTURES_IN_A_ROW = 4
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


def quality_over(rows: Sequence[Measurement], quality: Column, cost: Column) -> str:
    """A measure with its intervals against a cost on a logarithmic axis, a point per model.

    A line joins the models than which no other is both better and cheaper (the Pareto front).

    Args:
        rows: the models; those without the cost are left out.
        quality: a column of `Comparison.measures`.
        cost: another column, of bytes or microseconds.

    Raises:
        ValueError: if no row has both.
    """
    known = [row for row in rows if row.value(cost.key) and _is_known(row, quality)]
    if not known:
        raise problem(
            f"measurements without {cost.key} and {quality.key}",
            "measurements of .tflite files",
            "compare converted models",
        )
    front = pareto_front(known, quality, cost)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(True)
        axes.set_xscale("log")
        # Before anything is drawn: matplotlib warns of the limits that it finds for one point.
        cheapest, dearest = (end(row.known(cost.key) for row in known) for end in (min, max))
        room = max(1.1, (dearest / cheapest) ** 0.12)
        axes.set_xlim(cheapest / room, dearest * room)
        if len(front) > 1:
            axes.plot(
                [row.known(cost.key) for row in front],
                [_scaled(row.known(quality.key), quality) for row in front],
                color=_INK,
                alpha=0.45,
                linewidth=1.2,
                linestyle="--",
            )
        for index, row in enumerate(known):
            colour = _COLOURS[index % len(_COLOURS)]
            place, height = row.known(cost.key), _scaled(row.known(quality.key), quality)
            ends = _ends(row, quality)
            if ends is not None:
                axes.vlines(place, *ends, color=colour, alpha=0.45, linewidth=2)
            marker = _MARKERS[index % len(_MARKERS)]
            axes.plot(place, height, marker, color=colour, markersize=9, label=row.name)
        axes.margins(y=0.1)
        ticks = log_ticks(*axes.get_xlim())
        axes.set_xticks(ticks, [_short(tick, cost) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(f"{cost.title} (logarithmic)")
        axes.set_ylabel(quality.title)
        figure.legend(loc="outside lower left", ncols=2, handletextpad=0.2)

    points = "; ".join(
        f"{row.name} {quality.text(row)}{_unit(quality)} at {cost.text(row)} {cost.unit}"
        for row in known
    )
    return _svg(draw, 4.4, f"{quality.heading} over {cost.heading}: {points}")


def pareto_front(rows: Sequence[Measurement], quality: Column, cost: Column) -> list[Measurement]:
    """The rows than which no other is as good and cheaper, or as cheap and better; cheapest first.

    Args:
        rows: measurements with both values.
        quality: what should be good.
        cost: what should be small.
    """
    sign = 1 if quality.higher_is_better else -1
    ordered = sorted(rows, key=lambda row: (row.known(cost.key), -sign * row.known(quality.key)))
    front: list[Measurement] = []
    for row in ordered:
        if not front or sign * row.known(quality.key) > sign * front[-1].known(quality.key):
            front.append(row)
    return front


def per_class(
    first: Measurement, second: Measurement, class_names: Sequence[str], quality: Column
) -> str:
    """The accuracy of two models on each class and on all, joined by a line per class."""
    names = ["all", *class_names]
    lefts = [100 * value for value in (first.known(quality.key), *(first.per_class or ()))]
    rights = [100 * value for value in (second.known(quality.key), *(second.per_class or ()))]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(True, axis="x")
        places = range(len(names))
        axes.hlines(places, lefts, rights, color=_INK, alpha=0.4, linewidth=2)
        axes.plot(lefts, places, "s", color=_ORANGE, markersize=7, label=first.name)
        axes.plot(rights, places, "o", color=_BLUE, markersize=8, label=second.name)
        axes.set_yticks(places, names)
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.invert_yaxis()
        axes.set_xlabel("accuracy in %")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2)

    height = 1.4 + 0.26 * len(class_names)
    values = "; ".join(
        f"{name} {left:.1f} and {right:.1f} %"
        for name, left, right in zip(names, lefts, rights, strict=True)
    )
    return _svg(draw, height, f"Accuracy per class, {first.name} and {second.name}: {values}")


def confusions(rows: Sequence[Measurement], class_names: Sequence[str]) -> str:
    """The confusion matrices of one or two models side by side: right in blue, wrong in orange.

    A cell is the darker, the larger its share of the examples of its class. Numbers count examples.
    """

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
        patches = report_module("matplotlib.patches")
        for axes, row in zip(panels, rows, strict=True):
            for true, counts in enumerate(row.confusion or ()):
                total = sum(counts)
                for chosen, number in enumerate(counts):
                    if not number:
                        continue
                    colour = _BLUE if true == chosen else _ORANGE
                    # Single mistakes among many examples stay visible.
                    alpha = 0.12 + 0.78 * math.sqrt(number / total)
                    axes.add_patch(
                        patches.Rectangle(
                            (chosen - 0.5, true - 0.5), 1, 1, color=colour, alpha=alpha, linewidth=0
                        )
                    )
                    if len(class_names) <= _MOST_NUMBERED:
                        axes.text(chosen, true, f"{number}", ha="center", va="center", fontsize=6.5)
            places = range(len(class_names))
            axes.set_xlim(-0.5, len(class_names) - 0.5)
            axes.set_ylim(len(class_names) - 0.5, -0.5)
            axes.set_xticks(places, class_names, rotation=90)
            axes.set_yticks(places, class_names)
            axes.tick_params(length=0, labelsize=8)
            axes.set_title(row.name, fontsize=9.5)
            axes.set_xlabel("chosen")
        panels[0].set_ylabel("true class")

    mistakes = "; ".join(
        f"{row.name} takes " + _mistakes(row.confusion or (), class_names) for row in rows
    )
    height = 1.5 + min(0.9 + 0.2 * len(class_names), 4.5)
    return _svg(draw, height, f"Confusion matrices: {mistakes}")


def reliability(rows: Sequence[Measurement]) -> str:
    """How often models are right, over how sure they are; on the dotted line both are the same.

    Larger points represent more examples.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.grid(True)
        axes.plot([0, 100], [0, 100], color=_INK, linestyle=":", linewidth=1)
        for index, row in enumerate(rows):
            examples, *shares = zip(*(row.reliability or ()), strict=True)
            points = [[100 * value for value in values] for values in shares]
            colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
            axes.plot(*points, color=colour, linewidth=1, alpha=0.6)
            sizes = [8 + 90 * number / sum(examples) for number in examples]
            axes.scatter(*points, sizes, color=colour, marker=marker, label=row.name)
        lowest = min(confidence for row in rows for _, confidence, _ in row.reliability or ())
        axes.set_xlim(math.floor(10 * lowest) * 10, 101)
        axes.set_ylim(-2, 102)
        axes.set_xlabel("confidence in %")
        axes.set_ylabel("accuracy in %")
        figure.legend(loc="outside lower left", ncols=2, handletextpad=0.2)

    values = "; ".join(
        f"{row.name} "
        + ", ".join(
            f"{100 * right:.0f} % right at {100 * sure:.0f} %"
            for _, sure, right in row.reliability or ()
        )
        for row in rows
    )
    return _svg(draw, 4.0, f"Accuracy over confidence: {values}")


def pictures(images: np.ndarray, titles: Sequence[str], label: str) -> str:
    """Examples as pictures, four in a row, each with a text of a few lines above it.

    Args:
        images: shaped (examples, height, width), or with 1 or 3 channels behind. The smallest value
            is shown as black, the largest as white.
        titles: a text for each.
        label: what the pictures show, for those who do not see them.
    """
    low, high = float(images.min()), float(images.max())
    scaled = (images.astype("float64") - low) / ((high - low) or 1)

    def draw(figure: Any) -> None:
        rows = math.ceil(len(images) / _PICTURES_IN_A_ROW)
        panels = figure.subplots(rows, _PICTURES_IN_A_ROW, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        for axes, image, title in zip(panels, scaled, titles, strict=False):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(title, fontsize=7.5, linespacing=1.3)

    return _svg(draw, 0.2 + 1.4 * math.ceil(len(images) / _PICTURES_IN_A_ROW), label)


def share_of_teacher(teacher: Measurement, student: Measurement, columns: Sequence[Column]) -> str:
    """What the student keeps of the teacher: one bar per column, in percent of the teacher's."""
    bars = []
    for column in columns:
        of_teacher, of_student = teacher.value(column.key), student.value(column.key)
        if of_teacher and of_student is not None:
            caption = f"{column.text(student)} of {column.text(teacher)}{_unit(column)}"
            bars.append((column.heading, 100 * of_student / of_teacher, caption))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = [bar[0] for bar in bars]
        axes.barh(names, 100, height=0.42, color=_INK, alpha=0.10)
        axes.barh(names, [bar[1] for bar in bars], height=0.42, color=_BLUE)
        for place, (_, _, caption) in enumerate(bars):
            axes.text(0.8, place - 0.26, caption, va="bottom", fontsize=8.5)
        axes.invert_yaxis()
        axes.set_xlabel(f"{student.name}, in % of {teacher.name}")

    values = "; ".join(f"{name} {caption}" for name, _, caption in bars)
    label = f"{student.name} in percent of {teacher.name}: {values}"
    return _svg(draw, 0.9 + 0.55 * len(bars), label)


def differences(baseline: Measurement, rows: Sequence[Measurement], quality: Column) -> str:
    """How much better or worse than the baseline each model is, with the interval of 95 %.

    Beside it, where all are files, what is left of the compressed file.
    """
    are_files = all(row.compressed_bytes is not None for row in (baseline, *rows))

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 2 if are_files else 1, sharey=True, squeeze=False)[0]
        left = panels[0]
        left.axvline(0, color=_INK, linewidth=0.8)
        for place, row in enumerate(rows):
            found = row.quality[quality.key].difference
            assert found is not None
            better = (found.value >= 0) == quality.higher_is_better
            colour = _BLUE if better else _ORANGE
            value = _scaled(found.value, quality)
            if not math.isnan(found.low):
                ends = [_scaled(end, quality) for end in (found.low, found.high)]
                left.hlines(place, *ends, color=colour, alpha=0.55, linewidth=3)
            marker = "o" if found.is_clear else "|"
            left.plot(value, place, marker, color=colour, markersize=8, markeredgewidth=2)
            left.text(
                value, place - 0.18, quality.write_points(found.value), ha="center", va="bottom",
                fontsize=8.5,
            )  # fmt: skip
        left.set_yticks(range(len(rows)), [row.name for row in rows])
        left.set_ylim(len(rows) - 0.5, -0.6)
        left.margins(x=0.25)
        left.set_xlabel(f"{quality.heading}, {'points' if quality.is_share else 'difference'}")
        if are_files:
            right = panels[1]
            kilobytes = [row.known("compressed_bytes") / 1000 for row in rows]
            bars = right.barh(range(len(rows)), kilobytes, height=0.5, color=_GREEN)
            right.bar_label(bars, fmt="{:.1f}", padding=3, fontsize=8.5)
            right.axvline(
                baseline.known("compressed_bytes") / 1000, color=_INK, linewidth=0.8, linestyle=":"
            )
            right.margins(x=0.2)
            right.set_xlabel("gzip, kilobytes")

    values = "; ".join(f"{row.name} {quality.difference(row)}" for row in rows)
    return _svg(
        draw, 1.0 + 0.46 * len(rows), f"{quality.heading} against {baseline.name}: {values}"
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends of a logarithmic axis: at least two, also within a decade."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if 3 <= len(ticks) <= 6:
            return ticks
        if len(ticks) > 6:
            return ticks[:: math.ceil(len(ticks) / 6)]
    locator = report_module("matplotlib.ticker").MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
    return [float(tick) for tick in locator.tick_values(low, high) if low <= tick <= high]


def _short(number: float, column: Column) -> str:
    """A round number with its unit, short enough for an axis: "20 kB"."""
    if column.unit != "bytes":
        return f"{number:,.6g} {column.unit}".strip()
    for size, unit in ((1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:,.6g} {unit}"
    return f"{number:g} B"


def _is_known(row: Measurement, column: Column) -> bool:
    value = row.value(column.key)
    return value is not None and math.isfinite(value)


def _scaled(value: float, column: Column) -> float:
    return 100 * value if column.is_share else value


def _ends(row: Measurement, column: Column) -> tuple[float, float] | None:
    estimate = row.quality[column.key]
    if math.isnan(estimate.low):
        return None
    return _scaled(estimate.low, column), _scaled(estimate.high, column)


def _unit(column: Column) -> str:
    return f" {column.unit}" if column.unit else ""


def _mistakes(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> str:
    """The three commonest mistakes, in words."""
    found = [
        (number, class_names[true], class_names[chosen])
        for true, counts in enumerate(confusion)
        for chosen, number in enumerate(counts)
        if true != chosen and number
    ]
    found.sort(key=lambda mistake: -mistake[0])
    texts = [f"{true} for {chosen} {number} times" for number, true, chosen in found[:3]]
    return ", ".join(texts) or "no class for another"


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
