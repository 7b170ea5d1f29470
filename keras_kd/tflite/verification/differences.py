"""How far one output of a file is from the student's, collected batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_kd._checks import problem

# A few examples may fall on the other side of a decision (a sign, an argmax) by rounding alone.
_TYPICAL_SHARE = 0.9


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of a file is from the student's.

    A difference is infinite where only one of the two is NaN or infinite.

    Attributes:
        name: the name of the output.
        largest_difference: the largest absolute difference.
        mean_difference: the mean absolute difference.
        typical_difference: what the root mean square difference stays below in nine of ten
            examples.
        agreement: the share of choices that are the same; see `choices`.
        low: the smallest value of the student, 0.0 if that is lower.
        high: its largest value, 0.0 if that is higher.
        deviation: the standard deviation of its values.
        step: how far apart two numbers are that the file can tell apart; 0.0 for floats.
        is_float: whether the values are real numbers; class numbers, for example, are not.
        right: the share of labels that the file gets right; None without labels.
        student_right: the share that the student gets right, likewise.
    """

    name: str
    largest_difference: float
    mean_difference: float
    typical_difference: float
    agreement: float
    low: float
    high: float
    deviation: float
    step: float
    is_float: bool
    right: float | None = None
    student_right: float | None = None


class DifferenceMeter:
    """Compares one output, a batch at a time, and keeps a few numbers for each example.

    Args:
        name: the name of the output.
        step: see `OutputDifference`.
    """

    def __init__(self, name: str, step: float) -> None:
        self._name = name
        self._step = step
        self._is_float = True
        self._threshold: float | None = None
        self._measured: list[np.ndarray] = []
        self._same: list[np.ndarray] = []
        self._right: list[np.ndarray] = []
        self._student_right: list[np.ndarray] = []

    def add(
        self, received: np.ndarray, expected: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        """Compare a batch.

        Args:
            received: what the file computes, shaped (examples, ...).
            expected: what the student computes, likewise.
            labels: the classes; see `class_numbers`.

        Raises:
            ValueError: if the labels do not fit.
        """
        self._is_float = bool(np.issubdtype(expected.dtype, np.floating))
        received, expected = received.astype(np.float64), expected.astype(np.float64)
        self._measured.append(_measured(received, expected))
        if self._threshold is None:
            # A probability or a logit.
            self._threshold = 0.5 if expected.min() >= 0 and expected.max() <= 1 else 0.0
        chosen, by_student = (self._choices(values) for values in (received, expected))
        self._same.append(chosen == by_student)
        if labels is not None:
            classes = class_numbers(labels, expected.shape, self._name)
            self._right.append(chosen == classes)
            self._student_right.append(by_student == classes)

    def result(self) -> OutputDifference:
        """What all batches together say."""
        largest, mean, power, middle, variance, low, high = np.concatenate(self._measured).T
        typical = np.quantile(np.sqrt(power), _TYPICAL_SHARE, method="higher")
        return OutputDifference(
            name=self._name,
            largest_difference=float(largest.max()),
            mean_difference=float(mean.mean()),
            typical_difference=float(typical),
            agreement=_share(self._same),
            low=float(min(low.min(), 0)),
            high=float(max(high.max(), 0)),
            # As many values in each example: what they vary inside and from one to the next.
            deviation=float(np.sqrt(variance.mean() + middle.var())),
            step=self._step,
            is_float=self._is_float,
            right=_share(self._right) if self._right else None,
            student_right=_share(self._student_right) if self._right else None,
        )

    def _choices(self, values: np.ndarray) -> np.ndarray:
        return choices(values, self._threshold) if self._is_float else values.astype(np.int64)


def choices(values: np.ndarray, threshold: float) -> np.ndarray:
    """Which class is chosen where, of values shaped (examples, ..., classes).

    One number instead of several classes chooses between 0 and 1: 1 above `threshold`.
    """
    if _classes(values.shape) > 1:
        return values.argmax(axis=-1)
    return (values > threshold).astype(np.int64).reshape(_places(values.shape))


def class_numbers(labels: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Labels as the numbers of classes, shaped like the choices of an output.

    Args:
        labels: numbers shaped (examples, ...) or (examples, ..., 1), or one-hot rows like the
            outputs.
        shape: the shape of the outputs, (examples, ..., classes).
        name: the name of the output, for messages.

    Raises:
        ValueError: if they have another shape or are no numbers of classes.
    """
    places, classes = _places(shape), _classes(shape)
    if classes > 1 and labels.shape == shape:
        return labels.argmax(axis=-1)
    if labels.shape not in (places, (*places, 1)):
        raise ValueError(
            problem(
                f"labels of shape {labels.shape} for {shape[0]} examples of the output {name!r} "
                f"of shape {shape}",
                f"class numbers of shape {places}, or one-hot rows like the output",
                "pass the labels that the student was trained on",
            )
        )
    numbers, last = labels.reshape(places), max(classes, 2) - 1
    if np.any(numbers != np.floor(numbers)) or numbers.min() < 0 or numbers.max() > last:
        raise ValueError(
            problem(
                f"labels from {numbers.min():g} to {numbers.max():g} for the output {name!r}",
                f"whole numbers from 0 to {last}, the classes",
                "number the classes from 0; leave labels out if the student does not classify",
            )
        )
    return numbers.astype(np.int64)


def _measured(received: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """A row of numbers for each example."""
    received, expected = (values.reshape(len(values), -1) for values in (received, expected))
    with np.errstate(invalid="ignore"):
        difference = np.abs(received - expected)
    equal = (received == expected) | (np.isnan(received) & np.isnan(expected))
    difference[equal] = 0
    difference[np.isnan(difference)] = np.inf
    known = np.where(np.isfinite(expected), expected, 0)
    return np.stack(
        [
            difference.max(axis=1),
            difference.mean(axis=1),
            np.square(difference).mean(axis=1),
            known.mean(axis=1),
            known.var(axis=1),
            known.min(axis=1),
            known.max(axis=1),
        ],
        axis=1,
    )


def _classes(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) > 1 else 1


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the choices: one for each example, and for each pixel or word in it."""
    return shape[:-1] if len(shape) > 1 else shape


def _share(flags: list[np.ndarray]) -> float:
    return float(np.concatenate([flag.ravel() for flag in flags]).mean())
