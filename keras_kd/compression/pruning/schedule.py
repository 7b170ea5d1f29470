"""When pruning happens: in which training steps the masks are chosen anew."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

from keras_kd._checks import problem

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
    """Where a training stands at the beginning of an epoch.

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
    """When pruning shall begin and end, in steps or in epochs; see `prune`.

    What is None is chosen from the length of the training.
    """

    begin_step: int | None = None
    end_step: int | None = None
    begin_epoch: int | None = None
    end_epoch: int | None = None
    frequency: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _check(field.name, getattr(self, field.name)))
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
    def given(self) -> list[str]:
        """The names of what is not None."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def timetable(self, training: Training | None = None) -> Timetable | None:
        """The steps, or None where they depend on a training that is not given.

        Raises:
            ValueError: if pruning would begin or end out of the training.
        """
        if self.end_step is not None:
            return self._from(self.begin_step or 0, self.end_step)
        if training is None:
            return None
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
                f" {begin} to step {end} ({', '.join(self.given) or 'as chosen from it'})",
                "a training in which pruning begins and ends",
                "train longer, or prune earlier in it; with data of unknown length pruning"
                " begins after the first epoch",
            )
        return self._from(max(begin, 0), end)

    def _from(self, begin: int, end: int) -> Timetable:
        return Timetable(begin, end, self.frequency or max(1, (end - begin) // _UPDATES))


def _check(name: str, value: Any) -> int | None:
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
