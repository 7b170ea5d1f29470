"""The candidates of a search, and advice where none fits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_kd._checks import three_parts
from keras_kd._tables import Table
from keras_kd.devices import Device, bytes_as_text
from keras_kd.search.measuring import Cost, missed_text
from keras_kd.search.teaching import Examples, Judge

# The parts of an error of this package, see `three_parts`.
_PARTS = re.compile(r"Received (.*)\. Expected (.*)\. To fix it: (.*)\.")


@dataclass(frozen=True)
class Candidate:
    """A student of a search.

    Attributes:
        name: what it is called.
        settings: what distinguishes it: the fields of a `Form`, or the values of hyperparameters.
        cost: what its file takes, read from the untrained student's file; None: there is no file.
        misses: how many times it exceeds each limit that it does not keep; empty if it fits.
        reason: why there is no file.
        epochs: how long it was trained, with quantizers too; 0: never. Trainings that
            `max_minutes` ended count in full.
        value: the metric on the validation data after its last training in float32.
        file_value: the metric of its `.tflite`, run in LiteRT; None unless it was a finalist.
        file_cost: what that file takes.
    """

    name: str
    settings: Mapping[str, Any]
    cost: Cost | None
    misses: Mapping[str, float]
    reason: str = ""
    epochs: int = 0
    value: float | None = None
    file_value: float | None = None
    file_cost: Cost | None = None

    @property
    def fits(self) -> bool:
        """Whether there is a file of it that keeps all limits of the device."""
        return self.cost is not None and not self.misses and not self.reason

    @property
    def taken(self) -> Cost | None:
        """What its file takes after training, else before it."""
        return self.file_cost or self.cost

    @property
    def best_value(self) -> float | None:
        """The metric of its file, else the one in float32."""
        return self.value if self.file_value is None else self.file_value


class NothingFits(ValueError):
    """No student fits the device.

    Attributes:
        candidates: the students that were measured.
        nearest: of those that exceed limits, the one that does so least; None without one.
    """

    def __init__(
        self, device: Device, candidates: Sequence[Candidate], fixed: Sequence[str] = ()
    ) -> None:
        self.candidates = tuple(candidates)
        known = [each for each in self.candidates if each.misses]
        self.nearest = min(known, key=lambda each: max(each.misses.values()), default=None)
        super().__init__(_nothing(device, self.candidates, self.nearest, fixed))


def table(candidates: Sequence[Candidate], judge: Judge, device: Device) -> Table:
    """Every candidate a row."""
    is_micro = device.target == "microcontroller"
    header = ("student", "weights", "file B", "flash B", "arena B" if is_micro else "ms")
    rows = []
    for each in candidates:
        cost = each.taken
        value, file_value = (
            "-" if number is None else judge.measure.write(number)
            for number in (each.value, each.file_value)
        )
        numbers = ("-", "-", "-", "-")
        if cost is not None:
            last = cost.arena_bytes if is_micro else cost.latency
            written = "-" if last is None else f"{last:,}" if is_micro else f"{last:.3f}"
            numbers = (
                f"{cost.parameters:,}",
                f"{cost.bytes:,}",
                f"{cost.flash_bytes:,}",
                written,
            )
        verdict = "fits" if each.fits else "no file"
        if each.misses:
            verdict = " ".join(f"{name} x{times:.2f}" for name, times in each.misses.items())
        rows.append((each.name, *numbers, verdict, str(each.epochs), value, file_value))
    unit = " %" if judge.measure.is_share else ""
    heading = judge.measure.heading
    return Table((*header, "fit", "epochs", f"{heading}{unit}", "in int8"), rows)


def taken_text(cost: Cost | None, device: Device) -> str:
    """What a file takes of a device, for people."""
    if cost is None:
        return "-"
    parts = [f"{cost.bytes:,} bytes"]
    if device.target == "microcontroller" and cost.flash_bytes > cost.bytes:
        parts.append(f"{bytes_as_text(cost.flash_bytes)} of flash with TFLM and its kernels")
    elif device.target == "microcontroller":
        parts.append("the model alone: the size of TFLM is not known for this device")
    elif device.compressed:
        parts.append(f"{cost.flash_bytes:,} after gzip")
    if cost.arena_bytes is not None:
        parts.append(f"an arena of {bytes_as_text(cost.arena_bytes)}")
    if cost.latency is not None:
        parts.append(f"{cost.latency:.3f} ms in LiteRT on this computer")
    return ", ".join(parts)


def row_of(candidate: Candidate) -> dict[str, Any]:
    """A candidate as JSON types."""
    return {
        "name": candidate.name,
        "settings": dict(candidate.settings),
        "fits": candidate.fits,
        "misses": dict(candidate.misses),
        "reason": candidate.reason,
        "epochs": candidate.epochs,
        "value": candidate.value,
        "file_value": candidate.file_value,
        "cost": None if candidate.cost is None else candidate.cost.to_dict(),
        "file_cost": None if candidate.file_cost is None else candidate.file_cost.to_dict(),
    }


def _nothing(
    device: Device,
    candidates: Sequence[Candidate],
    nearest: Candidate | None,
    fixed: Sequence[str],
) -> str:
    # Where some are small enough and have no file, their size is not the obstacle.
    reasons = [each.reason for each in candidates if each.reason]
    is_size = not any(each.reason and each.cost and not each.misses for each in candidates)
    if nearest is None or nearest.taken is None or not is_size:
        reason = reasons[0] if reasons else ""
        found = _PARTS.fullmatch(reason)
        received, expected, fix = found.groups() if found else (reason, "", "")
        return three_parts(
            f"{len(candidates)} students for {device}, none of which can be converted"
            + (f": {received}" if received else ""),
            expected or "a student that converts to int8 and runs on the target",
            fix or "replace the layers that are named, or pass another family of students",
        )
    cost = nearest.taken
    help_ = []
    if "flash" in nearest.misses:
        limit = device.flash_bytes or 0
        runtime = cost.flash_bytes - cost.bytes
        more = f"{cost.flash_bytes - limit:,} bytes more flash"
        if device.target == "microcontroller" and runtime > limit:
            more += f" (TFLM and the kernels of its operators alone take {bytes_as_text(runtime)})"
        elif fixed:
            more += f", or student=build with a smaller {fixed[0]}, which the search cannot narrow"
        else:
            more += ", or student=build, a family with fewer layers and weights"
        help_.append(more)
    if "ram" in nearest.misses:
        more = (cost.arena_bytes or 0) - (device.ram_bytes or 0)
        help_.append(f"{more:,} bytes more RAM, a smaller input, or strides in the first layers")
    if "latency" in nearest.misses:
        help_.append("more time, a smaller input, or strides in the first layers")
    return three_parts(
        f"{device}, which none of {len(candidates)} students fits; the nearest, {nearest.name}, "
        f"takes {missed_text(nearest.misses, cost, device)}",
        "a device that the smallest student fits",
        "choose " + "; and ".join(help_),
    )


def examples_count(examples: Examples) -> str:
    """For people: "2,000 examples"."""
    return f"{len(examples):,} validation examples"
