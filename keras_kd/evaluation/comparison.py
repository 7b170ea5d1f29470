"""The measurements of several models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_kd._checks import problem
from keras_kd._files import replacing
from keras_kd._tables import Report, Table, row_named
from keras_kd.metrics import MEASURES, OF_TEACHER, Estimate


@dataclass(frozen=True)
class Measurement:
    """One model on the test examples. None: does not apply, or was not measured.

    Attributes:
        name: what the model is called.
        quality: what was measured on its outputs, an `Estimate` by the name of the measure
            ("accuracy"); with several outputs by output and measure ("age: mae").
        per_class: for classification the accuracy on the examples of each class, for multilabel
            the share of right decisions on each label, 0..1.
        confusion: for classification how many examples of each class (rows) were taken for each
            class (columns).
        reliability: for classification, for each range of confidences: how many examples, their
            mean confidence, their accuracy.
        parameters: number of weights of the Keras model.
        sparsity: share of zeros in the kernels of the Keras model, 0..1.
        bytes: size of the `.tflite`.
        compressed_bytes: size of the `.tflite` after gzip.
        latency_microseconds: median time for one example in LiteRT, one thread.
        arena_bytes: memory that TensorFlow Lite for Microcontrollers takes for tensors.
    """

    name: str
    quality: dict[str, Estimate] = field(default_factory=dict)
    per_class: tuple[float, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    reliability: tuple[tuple[int, float, float], ...] | None = None
    parameters: int | None = None
    sparsity: float | None = None
    bytes: int | None = None
    compressed_bytes: int | None = None
    latency_microseconds: float | None = None
    arena_bytes: int | None = None

    def value(self, key: str) -> float | None:
        """A measure of `quality` by its name, or another attribute; None where there is none."""
        if key in self.quality:
            return self.quality[key].value
        return getattr(self, key, None)

    def known(self, key: str) -> float:
        """`value` where there is one.

        Raises:
            ValueError: if there is none.
        """
        value = self.value(key)
        if value is None:
            raise problem(
                f"{key!r} of {self.name!r}, which was not measured",
                "a measured value",
                "compare converted models, on data with labels",
            )
        return value


@dataclass(frozen=True)
class Disagreement:
    """An example for which the two models of `Comparison.pair` choose different classes.

    Attributes:
        example: its place in the test examples.
        label: the number of its class; None without labels.
        first: what the first of the two models chooses.
        second: what the second one chooses.
    """

    example: int
    label: int | None
    first: int
    second: int


@dataclass(frozen=True)
class Column:
    """One column of the table: which value, how it is headed, written and explained.

    Attributes:
        key: what `Measurement.value` takes.
        heading: the text above it.
        unit: the text below the heading.
        write: from the value to a text.
        meaning: what it is, in a few words.
        is_share: whether it is a share of 1, written in percent.
        higher_is_better: whether more is better.
        is_detail: whether only the page has it.
        is_main: whether it is the first measure of its output, which represents the quality.
    """

    key: str
    heading: str
    unit: str
    write: Callable[[float], str]
    meaning: str
    is_share: bool = False
    higher_is_better: bool = False
    is_detail: bool = False
    is_main: bool = False

    def text(self, row: Measurement) -> str:
        """The cell of this column; a dash where the value does not apply."""
        value = row.value(self.key)
        return "-" if value is None or math.isnan(value) else self.write(value)

    def interval(self, row: Measurement) -> str:
        """From where to where the value may be: "97.1 - 98.4"; empty without an interval."""
        estimate = row.quality.get(self.key)
        if estimate is None or math.isnan(estimate.low):
            return ""
        return f"{self.write_bound(estimate.low)} - {self.write_bound(estimate.high)}"

    def difference(self, row: Measurement) -> str:
        """How much more than the baseline, with its interval: "+0.33 (-0.59, +1.25)"."""
        estimate = row.quality.get(self.key)
        if estimate is None or estimate.difference is None or math.isnan(estimate.value):
            return ""
        difference = estimate.difference
        span = ""
        if not math.isnan(difference.low):
            low, high = (self.write_points(end) for end in (difference.low, difference.high))
            span = f" ({low}, {high})"
        return self.write_points(difference.value) + span

    def write_bound(self, value: float) -> str:
        """The end of an interval, with a digit less than the value."""
        return f"{100 * value:.1f}" if self.is_share else f"{value:.3g}"

    def write_points(self, difference: float) -> str:
        """A difference with its sign, of shares in points of percent."""
        return f"{100 * difference:+.2f}" if self.is_share else f"{difference:+.3g}"

    @property
    def title(self) -> str:
        """The heading with its unit, for axes and sentences: "accuracy in %"."""
        return f"{self.heading} in {self.unit}" if self.unit else self.heading


def count(number: float) -> str:
    """24256 as "24,256"."""
    return f"{number:,.0f}"


def percent(share: float) -> str:
    """0.9745 as "97.45"."""
    return f"{100 * share:.2f}"


# What is known of a model besides its outputs.
_PROPERTIES = (
    Column("parameters", "weights", "", count, "number of parameters"),
    Column(
        "sparsity",
        "zeros",
        "%",
        lambda share: f"{100 * share:.0f}",
        "share of zeros in the kernels",
        is_share=True,
        higher_is_better=True,
    ),
    Column("bytes", "file", "bytes", count, "size of the .tflite"),
    Column("compressed_bytes", "gzip", "bytes", count, "size of the .tflite after gzip"),
    Column(
        "latency_microseconds",
        "latency",
        "µs",
        lambda microseconds: f"{microseconds:,.1f}",
        "median time for one example in LiteRT, one thread",
    ),
    Column("arena_bytes", "arena", "bytes", count, "working memory in TensorFlow Lite Micro"),
)


@dataclass(frozen=True)
class Comparison(Report):
    """Measurements of several models on the same test examples. `print` shows it.

    Attributes:
        name: what the data are called; may be empty.
        examples: how many test examples there were.
        tasks: what each output does, one of `keras_kd.metrics.TASKS`, by its name; the name is ""
            where there is one output.
        baseline: the name of the model that the others are compared with.
        teacher: the name of the model that others agree with; None: there is none, or it is not
            among the rows.
        class_names: one name per class or label; empty for other tasks.
        rows: one `Measurement` per model, in the order they were given.
        machine: where they were measured: processor, system, versions.
        disagreements: for one classification some examples on which the two models of `pair` choose
            differently, those first of which the first model is surest.
    """

    name: str
    examples: int
    tasks: dict[str, str]
    baseline: str
    teacher: str | None
    class_names: tuple[str, ...]
    rows: tuple[Measurement, ...]
    machine: dict[str, Any] = field(default_factory=dict)
    disagreements: tuple[Disagreement, ...] = ()

    def __getitem__(self, name: str) -> Measurement:
        """The measurement of the model called `name`.

        Raises:
            KeyError: if there is none.
        """
        return row_named(self.rows, name)

    @property
    def pair(self) -> tuple[str, str] | None:
        """The two models that are looked at closely; None where there is one.

        The teacher, or else the baseline, and the last of the others.
        """
        names = [row.name for row in self.rows]
        first = self.teacher or self.baseline
        others = [name for name in names if name != first]
        return (first, others[-1]) if others else None

    @cached_property
    def measures(self) -> tuple[Column, ...]:
        """The columns of `quality`, for each output the main one first."""
        columns: list[Column] = []
        for output, task in self.tasks.items():
            measured = [
                (measure_key(output, measure.name), measure)
                for measure in (*MEASURES[task], *OF_TEACHER[task])
            ]
            measured = [
                each for each in measured if any(each[0] in row.quality for row in self.rows)
            ]
            columns += [
                Column(
                    key=key,
                    heading=measure_key(output, measure.heading),
                    unit="%" if measure.is_share else "",
                    write=measure.write,
                    meaning=measure.meaning,
                    is_share=measure.is_share,
                    higher_is_better=measure.higher_is_better,
                    is_detail=measure.is_detail,
                    is_main=key == measured[0][0],
                )
                for key, measure in measured
            ]
        return tuple(columns)

    @property
    def mains(self) -> tuple[Column, ...]:
        """The main column of each output."""
        return tuple(column for column in self.measures if column.is_main)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns in which at least one row has a value."""
        used = [
            column
            for column in _PROPERTIES
            if any(row.value(column.key) is not None for row in self.rows)
        ]
        return (*self.measures, *used)

    def best(self) -> Measurement | None:
        """The row that is best in the first measure; None where nothing was measured."""
        if not self.measures:
            return None
        column = self.measures[0]
        sign = 1 if column.higher_is_better else -1
        known = [row for row in self.rows if not math.isnan(row.known(column.key))]
        return max(known, key=lambda row: sign * row.known(column.key), default=None)

    def _records(self) -> list[dict[str, Any]]:
        return [
            {"name": row.name, **{column.key: row.value(column.key) for column in self.columns}}
            for row in self.rows
        ]

    def _parts(self) -> list[Table | str]:
        header, units = ["model"], [""]
        cells = [[row.name] for row in self.rows]
        for column in self.columns:
            if column.is_detail:
                continue
            columns = [(column.heading, column.unit, column.text)]
            if column.is_main:
                columns.append(("95 %", "interval", column.interval))
                if any(column.difference(row) for row in self.rows):
                    columns.append(("difference", f"to {self.baseline}", column.difference))
            for heading, unit, text in columns:
                header.append(heading)
                units.append(unit)
                for row, line in zip(self.rows, cells, strict=True):
                    line.append(text(row) or "-")
        title = f"{count(self.examples)} test example{'' if self.examples == 1 else 's'}"
        title = f"{self.name}: {title}" if self.name else title
        return [title, Table(header, [units, *cells])]

    def save_json(self, path: str | Path) -> Path:
        """Write `to_dict()` to a file and return its path."""
        path = Path(path)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return path


def measure_key(output: str, name: str) -> str:
    """What a measure of an output is called; one output needs no name."""
    return f"{output}: {name}" if output else name
