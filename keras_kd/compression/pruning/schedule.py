"""Schedules of pruning: the sparsity at each step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any

from keras_kd._checks import check_number, problem

# The last quarter of a training recovers at full sparsity.
_SHARE_OF_TRAINING = 0.75
# More updates cost time (each sorts the weights) and gain nothing.
_UPDATES = 100


@dataclass(frozen=True)
class Timetable:
    """Masks are chosen in the first step after `begin_step` and in `end_step`.

    Between the two it happens every `frequency` steps, counted back from `end_step`, where the
    sparsity is final.
    """

    begin_step: int
    end_step: int
    frequency: int


@dataclass(frozen=True)
class Training:
    """The progress of a training at the beginning of an epoch.

    Args:
        done: steps in which the student has been pruned so far, in earlier trainings too.
        epoch: the epoch that begins, counted from 0.
        epochs: the epoch before which the training ends.
        steps_per_epoch: steps (batches) in each epoch.
    """

    done: int
    epoch: int
    epochs: int
    steps_per_epoch: int

    def step_at(self, epoch: int) -> int:
        """How many steps are done when `epoch` begins."""
        return self.done + (epoch - self.epoch) * self.steps_per_epoch


@dataclass(frozen=True)
class Plan:
    """The steps in which masks are updated; for the arguments see `PolynomialSchedule`.

    A None is chosen from the length of the training, see `prune`.
    """

    begin_step: int | None = None
    end_step: int | None = None
    begin_epoch: int | None = None
    end_epoch: int | None = None
    frequency: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self.plan).items():
            object.__setattr__(self, name, _check_count(name, value))
        steps, epochs = (self.begin_step, self.end_step), (self.begin_epoch, self.end_epoch)
        if steps != (None, None) and epochs != (None, None):
            raise problem(
                "a schedule in steps (begin_step, end_step) and in epochs (begin_epoch, end_epoch)",
                "one of the two",
                "leave the others out",
            )
        _check_order("begin_step", "end_step", *steps)
        _check_order("begin_epoch", "end_epoch", *epochs)

    @property
    def plan(self) -> Plan:
        """The steps alone, without the curve of a schedule."""
        return self if type(self) is Plan else Plan(*(getattr(self, f.name) for f in fields(Plan)))

    @property
    def _given(self) -> list[str]:
        return [name for name, value in asdict(self.plan).items() if value is not None]

    @property
    def fixed(self) -> Timetable | None:
        """The steps, or None where they depend on the training."""
        return None if self.end_step is None else self._from(self.begin_step or 0, self.end_step)

    def timetable(self, training: Training) -> Timetable:
        """The steps.

        Raises:
            ValueError: if pruning would begin or end out of the training.
        """
        if self.fixed is not None:
            return self.fixed
        length = training.step_at(training.epochs)
        if self.begin_epoch is not None:
            begin = training.step_at(self.begin_epoch)
        else:
            begin = self.begin_step or 0
        if self.end_epoch is not None:
            end = training.step_at(self.end_epoch)
        else:
            end = begin + max(1, int((length - begin) * _SHARE_OF_TRAINING))
        if begin >= length or end <= training.done:
            raise problem(
                f"a training from step {training.done} to step {length} with pruning from step"
                f" {begin} to step {end} ({', '.join(self._given) or 'as chosen from it'})",
                "a training in which pruning begins and ends",
                "train longer, or prune earlier in it; with data of unknown length pruning"
                " begins after the first epoch",
            )
        return self._from(max(begin, 0), end)

    def _from(self, begin: int, end: int) -> Timetable:
        return Timetable(begin, end, self.frequency or max(1, (end - begin) // _UPDATES))


@dataclass(frozen=True)
class PolynomialSchedule(Plan):
    """The sparsity grows fast at first and slowly towards the end (Zhu and Gupta, 2018).

    At the share t of the time between beginning and end it is
    `sparsity + (initial_sparsity - sparsity) * (1 - t) ** power`.

    Args:
        begin_step: training step (batch) after which the next one chooses the first masks; None is
            0.
        end_step: training step at which the final sparsity is reached. Without an end the schedule
            fits the first training.
        begin_epoch: as `begin_step`, in epochs counted from 0.
        end_epoch: as `end_step`: the epoch, counted from 0, at whose beginning it is reached.
        frequency: steps between two updates of the masks, counted back from the end. None makes
            about 100 updates.
        initial_sparsity: share of zeros at the first update, between 0 and 1.
        power: exponent, above 0.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if one is out of range, if the end is not after the beginning, or if both steps
            and epochs are given.

    Example:
        >>> pruned = prune(student, 0.8, schedule=PolynomialSchedule(begin_epoch=1, end_epoch=3))
    """

    initial_sparsity: float = 0.0
    power: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        fix = "leave it at 0.0"
        check_number("initial_sparsity", self.initial_sparsity, at_least=0, at_most=1, fix=fix)
        check_number("power", self.power, above=0, fix="3 prunes most at the beginning")

    def curve(self, final: float) -> tuple[float, float]:
        """The sparsity at the first update, and the exponent, on the way to a final sparsity.

        Raises:
            ValueError: if the schedule would begin above `final`.
        """
        initial = check_number(
            "initial_sparsity",
            self.initial_sparsity,
            at_least=0,
            at_most=final,
            fix="leave it at 0.0",
        )
        return initial, float(self.power)


@dataclass(frozen=True)
class ConstantSchedule(Plan):
    """The final sparsity from the first update on; the arguments of `PolynomialSchedule`."""

    def curve(self, final: float) -> tuple[float, float]:
        """See `PolynomialSchedule.curve`."""
        return final, 1.0


def _check_count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    unit = "epochs" if name.endswith("epoch") else "training steps"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise problem(
            f"{name}={value!r}", f"a whole number of {unit}", "pass an int", kind=TypeError
        )
    least = 0 if name.startswith("begin") else 1
    if value < least:
        raise problem(f"{name}={value}", f"at least {least}", f"count {unit}, beginning with 0")
    # NumPy's integers wrap around and are not serialized.
    return int(value)


def _check_order(first: str, last: str, begin: int | None, end: int | None) -> None:
    if end is not None and end <= (begin or 0):
        raise problem(
            f"{last}={end} with {first}={begin or 0}",
            f"at least {(begin or 0) + 1}",
            f"raise `{last}`",
        )
