"""Several files side by side on the same examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_kd._checks import check_type, problem
from keras_kd._examples import examples_by_name
from keras_kd._json import json_value
from keras_kd._tables import aligned, row_named
from keras_kd.metrics.measures import main_measure
from keras_kd.metrics.tasks import CLASSIFYING
from keras_kd.tflite.runtimes.litert import measure
from keras_kd.tflite.verification.differences import measure_differences, overall
from keras_kd.tflite.verification.kinds import output_kinds
from keras_kd.tflite.verification.verification import output_steps

if TYPE_CHECKING:
    from keras_kd.tflite.model import TFLiteModel

FIRST = "this file"
_RUNS = 100


@dataclass(frozen=True)
class FileRow:
    """One file of a comparison.

    Attributes:
        name: what it is called.
        size: its size in bytes.
        compressed_size: its size after gzip.
        latency_microseconds: the median time for one example, in XNNPACK on one thread.
        agreement: the share of choices that are those of the first file; None where nothing is
            chosen. See `Verification`.
        largest_difference: how far an output is from that of the first file at most.
        mean_difference: how far on average, in the output where that is largest.
        task: what the labels ask for; see `Verification`.
        score: what it achieves in the first measure of that task; None without labels.
    """

    name: str
    size: int
    compressed_size: int
    latency_microseconds: float
    agreement: float | None
    largest_difference: float
    mean_difference: float
    task: str | None
    score: float | None

    @property
    def accuracy(self) -> float | None:
        """The share of labels that it gets right; None where labels are no classes."""
        return self.score if self.task in CLASSIFYING else None


@dataclass(frozen=True)
class FileComparison:
    """Several files side by side. `print` shows it.

    Attributes:
        examples: how many examples they were run on.
        rows: one for each file; the others are compared with the first.
    """

    examples: int
    rows: tuple[FileRow, ...]

    def __getitem__(self, name: str) -> FileRow:
        """The row of the file called `name`.

        Raises:
            KeyError: if there is none.
        """
        return row_named(self.rows, name)

    def to_json(self) -> dict[str, Any]:
        """All of it, in types that JSON knows; infinite differences become None."""
        return json_value(asdict(self))

    def __str__(self) -> str:
        header = ["file", "bytes", "gzip", "µs", "agrees %", "largest", "mean"]
        rows = [_cells(row) for row in self.rows]
        if (task := self.rows[0].task) is not None:
            score = main_measure(task, has_labels=True)
            header.append(f"{score.heading} %" if score.is_share else score.heading)
            for cells, row in zip(rows, self.rows, strict=True):
                cells.append(score.write(row.score))
        return f"{self.examples:,} examples\n{aligned(header, rows)}"


def compare_files(
    first: TFLiteModel, others: Mapping[str, TFLiteModel], x: Any, labels: Any = None
) -> FileComparison:
    """Run several files on the same examples; see `TFLiteModel.compare`.

    Raises:
        ValueError: if there is no other file, if the examples or the labels do not fit, or if a
            file has other inputs or outputs than the first.
    """
    if not isinstance(others, Mapping):
        raise problem(
            f"other files in a {type(others).__name__}",
            "a dict of models by name",
            "pass {'int8': int8_model} or the like",
            kind=TypeError,
        )
    for name, other in others.items():
        check_type(name, other, type(first), "TFLiteModel.load('student.tflite')")
    if not others:
        raise problem("no other file", "at least one", "pass {'int8': int8_model} or the like")
    if FIRST in others:
        raise problem(
            f"a file called {FIRST!r}", "another name", "that is what the first is called"
        )
    files = {FIRST: first, **others}
    examples = examples_by_name(x, first.inputs)
    latencies = _medians(list(files.values()), examples)
    rows = [
        _row(name, file, first, examples, labels, latency)
        for (name, file), latency in zip(files.items(), latencies, strict=True)
    ]
    return FileComparison(len(next(iter(examples.values()))), tuple(rows))


def _row(
    name: str,
    file: TFLiteModel,
    first: TFLiteModel,
    examples: dict[str, np.ndarray],
    labels: Any,
    latency: float,
) -> FileRow:
    try:
        outputs = measure_differences(
            file.predict_by_name,
            first.predict_by_name,
            examples,
            output_steps(file),
            labels,
            kinds=output_kinds(first),
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    result = overall(outputs)
    del result["student_score"]
    return FileRow(name, file.size, file.compressed_size, latency, **result)


def _medians(files: list[TFLiteModel], examples: dict[str, np.ndarray]) -> list[float]:
    """Microseconds, measured in turns so that they can be compared."""
    example = {name: array[:1] for name, array in examples.items()}
    inputs = []
    for file in files:
        stored = file.quantize_inputs(example)
        inputs.append([stored[tensor.name] for tensor in file.inputs])
    measured = measure([(file.content, "xnnpack", 1) for file in files], inputs, _RUNS)
    return [float(np.median(microseconds)) for microseconds in measured]


def _cells(row: FileRow) -> list[str]:
    return [
        row.name,
        f"{row.size:,}",
        f"{row.compressed_size:,}",
        f"{row.latency_microseconds:,.1f}",
        _percent(row.agreement),
        f"{row.largest_difference:.3g}",
        f"{row.mean_difference:.3g}",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
