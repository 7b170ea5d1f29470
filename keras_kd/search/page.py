"""A search as one HTML page: every candidate a row, the front over bytes, arena and latency."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from keras_kd.evaluation import Comparison, Figure, Highlight, Measurement, Page, plots, save_report
from keras_kd.evaluation.comparison import Column
from keras_kd.evaluation.machine import machine
from keras_kd.metrics import Estimate
from keras_kd.search.candidates import Candidate, examples_count, table, taken_text

if TYPE_CHECKING:
    from keras_kd.search.result import FitResult

_TEACHER = "teacher"
_COSTS = ("bytes", "arena_bytes", "latency_microseconds")
_UNKNOWN = float("nan")


def write_page(result: FitResult, path: Path) -> Path:
    """Write the page of a search.

    Args:
        result: what was found.
        path: of the HTML file.

    Raises:
        ModuleNotFoundError: without the extra `report`.
    """
    judge = result._judge
    name = judge.measure.name
    trained = [each for each in result.candidates if each.best_value is not None]
    rows = [
        Measurement(_TEACHER, {name: _known(result.teacher_value)}),
        *(_row(each, name) for each in trained),
    ]
    comparison = Comparison(
        name=result.device.name,
        examples=len(judge.examples),
        tasks={"": judge.task},
        baseline=_TEACHER,
        teacher=_TEACHER,
        class_names=(),
        rows=tuple(rows),
        machine=machine(),
    )
    return save_report(comparison, path, _page(result, comparison))


def _page(result: FitResult, comparison: Comparison) -> Page:
    judge, winner = result._judge, result.winner
    quality = comparison.measures[0]
    figures = [
        _figure(comparison, quality, column)
        for column in comparison.columns
        if column.key in _COSTS
    ]
    return Page(
        title=f"A student for {result.device.name}",
        introduction=f"{result.device}. {winner.name} takes "
        f"{taken_text(winner.file_cost, result.device)}. Values are of "
        f"{examples_count(judge.examples)}, by which the student was chosen; those of finalists "
        "are of their .tflite, the others of the student in float32 when it was left.",
        highlights=[
            Highlight(
                judge.text(winner.file_value or 0.0), f"{result.metric} of the winner's file"
            ),
            Highlight(judge.text(result.teacher_value), f"{result.metric} of the teacher"),
            Highlight(
                "reached" if result.reached else "missed", f"the goal of {judge.text(result.goal)}"
            ),
            Highlight(f"{result.minutes:.1f}", "minutes of search"),
        ],
        figures=[
            *figures,
            _text(
                "Every student that was looked at",
                "Limits that a student misses, and by how many times.",
                str(table(result.candidates, judge, result.device)),
            ),
            _text("The settings of the winner", "Code that makes it again.", result.code),
        ],
    )


def _figure(comparison: Comparison, quality: Column, cost: Column) -> Figure:
    return Figure(
        f"{quality.heading} over {cost.heading}",
        "Further left is cheaper. The dashed line joins the students than which no other is both "
        "better and cheaper.",
        plots.quality_over(comparison.rows, quality, cost),
    )


def _row(candidate: Candidate, name: str) -> Measurement:
    cost = candidate.taken
    value = candidate.best_value
    quality = {} if value is None else {name: _known(value)}
    if cost is None:
        return Measurement(candidate.name, quality)
    return Measurement(
        candidate.name,
        quality,
        parameters=cost.parameters,
        bytes=cost.bytes,
        arena_bytes=cost.arena_bytes,
        latency_microseconds=None if cost.latency is None else 1000 * cost.latency,
    )


def _known(value: float) -> Estimate:
    """A value whose interval was not computed."""
    return Estimate(value, _UNKNOWN, _UNKNOWN)


def _text(title: str, caption: str, text: str) -> Figure:
    """Text whose lines and spaces matter, in the place of a plot."""
    return Figure(title, caption, f'<pre style="overflow-x: auto">{html.escape(text)}</pre>')
