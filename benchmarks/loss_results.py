"""What `losses.py` measured: a file that grows with every trial, and the table made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from distillation_gain import mean_and_standard_error

from keras_kd._files import replacing

HEAD = (
    "| loss | layers | weight | accuracy, % | gain over alone | cost of a step |\n"
    "| --- | --- | ---: | ---: | ---: | ---: |"
)


class Results:
    """Measurements in a JSON file, each filed under a description of what was measured.

    Args:
        path: the file; what is in it is kept and added to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[dict[str, Any]] = []
        if path.exists():
            self._records = json.loads(path.read_text(encoding="utf-8"))

    def add(self, description: dict[str, Any], **measured: float) -> None:
        """File a measurement in place of any before it, and write the file at once."""
        description = _as_read(description)
        self._records = [record for record in self._records if not _is_of(record, description)]
        self._records.append({**description, "measured": measured})
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps(self._records, indent=1) + "\n", encoding="utf-8")

    def find(self, description: dict[str, Any]) -> dict[str, float] | None:
        """What was measured, or `None`."""
        description = _as_read(description)
        for record in self._records:
            if _is_of(record, description):
                return record["measured"]
        return None


def table(
    rows: Sequence[dict[str, Any]], setting: dict[str, Any], seeds: Sequence[int], results: Results
) -> str:
    """A Markdown table, the best loss first, of the losses that have all their trials.

    Args:
        rows: descriptions of the losses; the first is the student alone, with which the others
            are compared seed by seed.
        setting: what all trials have in common.
        seeds: those of the trials.
        results: the measurements.
    """
    trials = {
        row["loss"]: [results.find({**row, "setting": setting, "seed": seed}) for seed in seeds]
        for row in rows
    }
    scores = {
        name: np.array([trial["accuracy"] for trial in found])
        for name, found in trials.items()
        if None not in found
    }
    costs = {row["loss"]: results.find({**row, "setting": setting, "cost": True}) for row in rows}
    alone = rows[0]["loss"]
    if alone not in scores:
        return HEAD

    def line(row: dict[str, Any]) -> str:
        score, cost = scores[row["loss"]], costs[row["loss"]]
        ratio = (
            cost["milliseconds"] / costs[alone]["milliseconds"] if cost and costs[alone] else None
        )
        cells = [_mean(score, ".2f"), "", "" if ratio is None else f"{ratio:.2f}"]
        if row["loss"] == alone:
            cells = ["alone", "", "", *cells]
        else:
            cells[1] = _mean(score - scores[alone], "+.2f")
            cells = [_call(row), ", ".join(row["layers"]) or "outputs", f"{row['weight']}", *cells]
        return f"| {' | '.join(cells)} |"

    tried = [row for row in rows if row["loss"] in scores]
    best_first = sorted(tried, key=lambda row: -scores[row["loss"]].mean())
    return "\n".join([HEAD, *map(line, best_first)])


def _mean(values: np.ndarray, form: str) -> str:
    """The mean of the values and its standard error."""
    mean, error = mean_and_standard_error(values)
    return f"{mean:{form}} ± {error:.2f}"


def _call(row: dict[str, Any]) -> str:
    """The loss as it is written in a program, without its layers."""
    arguments = ", ".join(f"{name}={value}" for name, value in row["arguments"].items())
    return f"`{row['loss']}({arguments})`"


def _as_read(description: dict[str, Any]) -> dict[str, Any]:
    """The description as it comes back from a file, where tuples are lists."""
    return json.loads(json.dumps(description))


def _is_of(record: dict[str, Any], description: dict[str, Any]) -> bool:
    return {key: value for key, value in record.items() if key != "measured"} == description
