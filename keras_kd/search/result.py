"""The result of a search: the student, its file, and every candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from keras_kd import tflite
from keras_kd._checks import problem
from keras_kd._files import check_output, replacing
from keras_kd._json import json_value
from keras_kd._tables import Report, Table, row_named
from keras_kd.devices import Device
from keras_kd.search.candidates import Candidate, examples_count, row_of, table, taken_text
from keras_kd.search.measuring import missed_text
from keras_kd.search.page import write_page
from keras_kd.search.selection import front
from keras_kd.search.teaching import Judge, as_floats

_VECTORS = 100
# As much as a project for microcontrollers keeps free in its arena, where there is room.
_MARGIN = 0.2


@dataclass(frozen=True)
class FitResult(Report):
    """The best student that fits a device. `print` shows all of it on a page.

    Attributes:
        model: the file, verified in the runtime of the target.
        student: the Keras 3 model with the weights that the file was made of.
        winner: its row.
        candidates: every student that was measured.
        device: what they had to fit.
        teacher_value: the metric of the teacher on the validation data.
        goal: what the metric should reach.
        reached: whether the winner's file does.
        metric: the name of the metric.
        minutes: how long the search has worked, in all its runs.
        code: Python code that trains the winner again.
    """

    model: tflite.TFLiteModel
    student: keras.Model
    winner: Candidate
    candidates: tuple[Candidate, ...]
    device: Device
    teacher_value: float
    goal: float
    reached: bool
    metric: str
    minutes: float
    code: str
    _judge: Judge = field(repr=False)

    def __getitem__(self, name: str) -> Candidate:
        """The candidate of a name.

        Raises:
            KeyError: if there is none.
        """
        return row_named(self.candidates, name)

    def front(self, cost: str = "flash_bytes") -> tuple[Candidate, ...]:
        """The trained candidates for which no other is both cheaper and better (the Pareto front).

        Args:
            cost: an attribute of `Cost`: "bytes", "flash_bytes", "arena_bytes" or "latency".
        """
        known = [
            (each, getattr(each.cost, cost), each.best_value)
            for each in self.candidates
            if each.best_value is not None and getattr(each.cost, cost, None) is not None
        ]
        points = [(taken, self._judge.signed(value)) for _, taken, value in known]
        return tuple(known[place][0] for place in front(points))

    @property
    def smaller(self) -> Candidate | None:
        """The largest trained candidate whose file is smaller than the winner's."""
        trained = [each for each in self.candidates if each.value is not None]
        below = [each for each in trained if _bytes(each) < _bytes(self.winner)]
        return max(below, key=_bytes, default=None)

    @property
    def larger(self) -> Candidate | None:
        """The smallest candidate whose file is larger than the winner's."""
        known = [each for each in self.candidates if each.cost is not None]
        above = [each for each in known if _bytes(each) > _bytes(self.winner)]
        return min(above, key=_bytes, default=None)

    def save(self, directory: str | Path, name: str = "model") -> tuple[Path, ...]:
        """Write the student for its device.

        For microcontrollers a folder of firmware as `tflite.microcontroller.write_project` makes
        it; and `<name>.tflite`, `<name>.keras`, `<name>.py` (the code) and `search.json`.

        Args:
            directory: where; its parent must be there.
            name: what files, and the functions of the firmware, are named after.

        Returns:
            The paths, sorted.

        Raises:
            OSError: if nothing can be written there.
            ValueError: if the name is none for C.
        """
        folder = Path(directory)
        check_output(folder)
        written: list[Path] = []
        micro = tflite.microcontroller
        if self.device.target == "microcontroller" and micro.is_installed():
            examples = keras.tree.map_structure(
                lambda array: array[:_VECTORS], as_floats(self.model, self._judge.examples.x)
            )
            written += micro.write_project(
                self.model, folder, name, examples, margin=self._margin()
            )
        folder.mkdir(exist_ok=True)
        written.append(self.model.save(folder / f"{name}.tflite"))
        with replacing(folder / f"{name}.keras") as temporary:
            self.student.save(temporary)
        with replacing(folder / f"{name}.py") as temporary:
            temporary.write_text(self.code, encoding="utf-8")
        with replacing(folder / "search.json") as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        written += [folder / f"{name}.keras", folder / f"{name}.py", folder / "search.json"]
        return tuple(sorted(written))

    def _margin(self) -> float:
        """What the arena of the firmware is larger than measured, so that it still fits."""
        arena, limit = self.winner.taken, self.device.ram_bytes
        if arena is None or arena.arena_bytes is None or limit is None:
            return _MARGIN
        # The arena is rounded up to 16 bytes.
        return max(0.0, min(_MARGIN, (limit - 16) / arena.arena_bytes - 1))

    def report(self, path: str | Path) -> Path:
        """Write one HTML page with every candidate, plots and the winner's settings.

        Raises:
            ModuleNotFoundError: without the extra `report`.
            OSError: if it cannot be written.
        """
        return write_page(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """All numbers, as JSON types."""
        return json_value(
            {
                "device": str(self.device),
                "metric": self.metric,
                "teacher_value": self.teacher_value,
                "goal": self.goal,
                "reached": self.reached,
                "winner": self.winner.name,
                "value": self.winner.file_value,
                "minutes": self.minutes,
                "front": [each.name for each in self.front()],
                "candidates": [row_of(each) for each in self.candidates],
                "code": self.code,
            }
        )

    def _parts(self) -> Sequence[Table | str]:
        text = self._judge.text
        winner = self.winner
        cost = winner.taken
        return [
            f"{self.device}",
            f"Best that fits: {winner.name}, {self.metric} {text(winner.file_value or 0.0)} "
            f"({examples_count(self._judge.examples)}), the teacher {text(self.teacher_value)}",
            f"Takes {taken_text(cost, self.device)}",
            self._goal_text(),
            "",
            table(self.candidates, self._judge, self.device),
            "",
            *self._steps(),
            f"Front of {self.metric} over flash: {', '.join(e.name for e in self.front())}",
            f"{self.minutes:.1f} minutes. The settings of the winner, as code:",
            "",
            self.code,
        ]

    def _records(self) -> Sequence[Mapping[str, Any]]:
        return [_record(each) for each in self.candidates]

    def _goal_text(self) -> str:
        text = self._judge.text
        if self.reached:
            return f"The goal of {text(self.goal)} is reached."
        return (
            f"The goal of {text(self.goal)} is missed. What would help: more epochs or trials, "
            f"more {_bound(self.winner, self.device)}, or a better teacher."
        )

    def _learned_text(self, candidate: Candidate) -> str:
        if candidate.best_value is None:
            return "fits, not trained"
        value = self._judge.text(candidate.best_value)
        return f"{self.metric} {value} after {candidate.epochs} epochs"

    def _steps(self) -> list[str]:
        lines = []
        for word, other in (("smaller", self.smaller), ("larger", self.larger)):
            if other is None or other.cost is None:
                continue
            missed = missed_text(other.misses, other.cost, self.device)
            what = missed or self._learned_text(other)
            lines.append(f"One step {word}: {other.name}, {_bytes(other):,} bytes: {what}")
        return lines


def _record(candidate: Candidate) -> dict[str, Any]:
    """A candidate as a row of a DataFrame, without nested dicts."""
    row = row_of(candidate)
    cost, file_cost = row.pop("cost"), row.pop("file_cost")
    misses = {f"{name}_exceeded": times for name, times in row.pop("misses").items()}
    settings = row.pop("settings")
    return {**row, **settings, **(file_cost or cost or {}), **misses}


def _bytes(candidate: Candidate) -> int:
    cost = candidate.taken
    return 0 if cost is None else cost.bytes


def _bound(winner: Candidate, device: Device) -> str:
    """Which limit the winner uses most."""
    cost = winner.taken
    if cost is None:
        return "flash"
    shares = {
        "flash": cost.flash_bytes / (device.flash_bytes or float("inf")),
        "RAM": (cost.arena_bytes or 0) / (device.ram_bytes or float("inf")),
        "time": (cost.latency or 0) / (device.latency or float("inf")),
    }
    return max(shares, key=shares.__getitem__)


def check_goal(name: str, keep: float | None, goal: float | None) -> None:
    """Refuse two goals.

    Raises:
        ValueError: if both are given.
    """
    if keep is not None and goal is not None:
        raise problem(
            f"keep={keep!r} and goal={goal!r}",
            "one of them",
            f"leave out keep where {name} has a goal of its own",
        )
