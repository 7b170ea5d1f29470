"""Differences between two sets of outputs, collected batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import problem
from keras_kd.metrics import Answers, Measure, labels_by_output, labels_for, task_of
from keras_kd.metrics.measures import main_measure
from keras_kd.metrics.statistics import score_examples, summary
from keras_kd.metrics.tasks import DECIDING, decisions, leads, threshold_of
from keras_kd.tflite.verification.kinds import OutputKind

# Of dense outputs (a class for every pixel) not many fit into memory at once.
_BATCH_SIZE = 32
# A few examples may fall on the other side of a decision (a sign, an argmax) by rounding alone.
_TYPICAL_SHARE = 0.9

# At this share of the deviation nothing of the student is left: its mean alone would be as close.
NOTHING_LEFT = 0.8
# Of the usual lead of the best class. Measured on digits: of choices that are as clear, rounding
# (down to 4 bits) changed 0 to 0.3 %, another student of the same network 2 to 13 %.
_CLEAR_LEAD = 0.25
# Columns whose deviations differ more are different quantities, not scores of classes.
_MOST_UNLIKE = 10

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ChannelDifference:
    """How far one channel of an output is from the student's.

    Attributes:
        square_difference, typical_difference, rounding_difference, deviation: as those of
            `OutputDifference`, of this channel.
        extent: how far its largest value is from its smallest, of the student.
    """

    square_difference: float
    typical_difference: float
    rounding_difference: float | None
    deviation: float
    extent: float

    @property
    def is_lost(self) -> bool:
        """Whether nothing of its variation is left: its mean alone would be about as close."""
        return 0 < NOTHING_LEFT * self.deviation <= self.square_difference


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of a file is from the student's.

    A difference is infinite where only one of the two is NaN or infinite.

    Attributes:
        name: the name of the output.
        values: how many numbers were compared, all examples together.
        largest_difference: the largest absolute difference.
        mean_difference: the mean absolute difference.
        square_difference: the root mean square difference; its square is the error power.
        typical_difference: what it stays below in nine of ten examples.
        agreement: the share of choices that are the same; None where the output chooses nothing.
            See `Verification`.
        low: the smallest value of the student, or 0.0 if that is lower.
        high: its largest value, or 0.0 if that is higher.
        deviation: the standard deviation of its values; its square is the signal power.
        step: how far apart two numbers are that the file distinguishes; 0.0 for floats.
        is_float: whether the values are real numbers; class numbers, for example, are not.
        not_finite: in how many examples the file or the student gives NaN or infinity.
        task: what the output does according to its labels, one of `keras_kd.metrics.TASKS`; None
            without labels.
        score: what the file achieves in the first measure of this task.
        student_score: what the student achieves, likewise.
        rounding_difference: what `typical_difference` would be if the file did nothing but round
            to its steps; None where that is not known. See `keras_kd.tflite.verification.rounding`.
        is_probability: whether the values are parts of 1, however small.
        channels: the numbers of the last axis, one by one: columns, classes, features.
        clear_agreement: the share of choices that are the same among those that rounding cannot
            change: where the student's best class leads by more than a quarter of what it usually
            leads by. Rounding changes next to none of these; another student, trained as well for
            the same task, changes some in a hundred. None where `agreement` is None, and where
            outputs are numbers of classes.
    """

    name: str
    values: int
    largest_difference: float
    mean_difference: float
    square_difference: float
    typical_difference: float
    agreement: float | None
    low: float
    high: float
    deviation: float
    step: float
    is_float: bool
    not_finite: int = 0
    task: str | None = None
    score: float | None = None
    student_score: float | None = None
    rounding_difference: float | None = None
    is_probability: bool = False
    channels: tuple[ChannelDifference, ...] = ()
    clear_agreement: float | None = None

    @property
    def measure(self) -> Measure | None:
        """What `score` and `student_score` are; None without labels."""
        return None if self.task is None else main_measure(self.task, has_labels=True)

    @property
    def lost_channels(self) -> tuple[int, ...]:
        """The channels of whose variation the file keeps nothing. None among probabilities."""
        if self.is_probability or not self.is_float:
            return ()
        return tuple(n for n, channel in enumerate(self.channels) if channel.is_lost)

    @property
    def fewest_levels(self) -> float | None:
        """Into how many steps the channel with the fewest is divided; None where it is no matter.

        It is for numbers that choose nothing and that the file rounds at its end: the score of a
        class needs few levels.
        """
        if self.agreement is not None or self.is_probability or not self.step:
            return None
        levels = [c.extent / self.step for c in self.channels if c.extent]
        return min(levels, default=None)


def measure_differences(
    received: Callable[[dict[str, np.ndarray]], Outputs],
    expected: Callable[[dict[str, np.ndarray]], Outputs],
    examples: Mapping[str, np.ndarray],
    steps: Mapping[str, float],
    y: Any = None,
    rounded: Callable[[dict[str, np.ndarray]], Outputs] | None = None,
    kinds: Mapping[str, OutputKind] | None = None,
) -> tuple[OutputDifference, ...]:
    """Compare what two functions make of the same examples.

    Args:
        received: from a batch of inputs by name to a file's outputs by name.
        expected: likewise, to what they should be.
        examples: arrays by input name, shaped (examples, ...).
        steps: for each output of the file, in its order, `OutputDifference.step`.
        y: None, an array for a single output, or a dict by output name.
        rounded: likewise, to what the file would give if it did nothing but round.
        kinds: what is known of the outputs; where nothing is, they choose between classes.

    Raises:
        ValueError: if there is no example, if the outputs have other names or shapes, or if the
            labels do not fit.
    """
    count = len(next(iter(examples.values())))
    if count == 0:
        raise problem("x without an example", "at least one", "pass x_test[:500]")
    known = labels_by_output(y, list(steps), count)
    shapes = [array.shape[1:] for array in examples.values()]
    meters: dict[str, _DifferenceMeter] = {}
    for start in range(0, count, _BATCH_SIZE):
        chosen = slice(start, start + _BATCH_SIZE)
        batch = {name: array[chosen] for name, array in examples.items()}
        # Keras reports faults of the data more clearly than LiteRT.
        references = expected(batch)
        outputs = received(batch)
        _check_same_outputs(outputs, references)
        only_rounded = rounded(batch) if rounded is not None else {}
        meters = meters or {
            name: _DifferenceMeter(
                name,
                step,
                (kinds or {}).get(name, OutputKind(chooses=True)),
                task_of(references[name], known[name], shapes) if name in known else None,
            )
            for name, step in steps.items()
        }
        for name, meter in meters.items():
            labelled = None
            if name in known:
                labelled = _Labelled(known[name][chosen], list(batch.values()))
            meter.add(outputs[name], references[name], labelled, only_rounded.get(name))
    return tuple(meter.result() for meter in meters.values())


def overall(outputs: Sequence[OutputDifference]) -> dict[str, Any]:
    """What the outputs together come to: the worst of them, and the mean score.

    Scores of different measures have no mean.
    """
    labelled = [output for output in outputs if output.task is not None]
    tasks = {output.task for output in labelled}
    (task,) = tasks if len(tasks) == 1 else (None,)
    agreements = [output.agreement for output in outputs if output.agreement is not None]
    return {
        "largest_difference": max(output.largest_difference for output in outputs),
        "mean_difference": max(output.mean_difference for output in outputs),
        "agreement": min(agreements, default=None),
        "task": task,
        "score": _mean([output.score for output in labelled]) if task else None,
        "student_score": _mean([output.student_score for output in labelled]) if task else None,
    }


class _Labelled(NamedTuple):
    """The labels of a batch, and what went in."""

    y: np.ndarray
    inputs: list[np.ndarray]


class _DifferenceMeter:
    """Compares one output, a batch at a time, and keeps a few numbers for each example."""

    def __init__(self, name: str, step: float, kind: OutputKind, task: str | None) -> None:
        self._name = name
        self._step = step
        self._kind = kind
        self._task = task
        self._is_float = True
        self._values = 0
        self._not_finite = 0
        self._threshold: float | None = None
        self._measured: list[np.ndarray] = []
        self._channels: list[np.ndarray] = []
        self._same: list[np.ndarray] = []
        self._clear_lead: float | None = None
        self._clear = self._same_of_clear = 0
        self._y: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._student_scores: list[np.ndarray] = []

    def add(
        self,
        received: np.ndarray,
        expected: np.ndarray,
        labelled: _Labelled | None,
        rounded: np.ndarray | None,
    ) -> None:
        """Compare a batch; arrays are shaped (examples, ...)."""
        self._is_float = bool(np.issubdtype(expected.dtype, np.floating))
        self._values += expected.size
        if self._threshold is None:
            # A probability or a logit.
            self._threshold = threshold_of(expected)
        self._decide(received, expected, labelled)
        received, expected = received.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(received) & np.isfinite(expected)
        self._not_finite += int((~finite.reshape(len(finite), -1).all(axis=1)).sum())
        self._measured.append(_measured(received, expected))
        self._channels.append(_of_channels(received, expected, rounded))

    def _decide(
        self, received: np.ndarray, expected: np.ndarray, labelled: _Labelled | None
    ) -> None:
        task = self._task or self._kind.task or "classification"
        if task in DECIDING:
            chosen, by_student = (
                decisions(task, values, self._threshold) for values in (received, expected)
            )
            self._same.append(chosen == by_student)
            self._count_clear(task, expected, chosen == by_student)
        if labelled is None:
            return
        y = labels_for(task, labelled.y, expected, self._name)
        target = next((each for each in labelled.inputs if each.shape == expected.shape), None)
        self._y.append(y)
        for values, scores in ((received, self._scores), (expected, self._student_scores)):
            answers = Answers(task, values, y, target, threshold=self._threshold)
            scores.append(score_examples(answers))

    def result(self) -> OutputDifference:
        """The result of all batches together."""
        largest, mean, power, middle, variance, low, high = np.concatenate(self._measured).T
        channels, rounding = self._of_channels()
        chooses = bool(self._same) and self._chooses(channels)
        is_clear = chooses and self._clear
        return OutputDifference(
            name=self._name,
            values=self._values,
            largest_difference=float(largest.max()),
            mean_difference=float(mean.mean()),
            square_difference=float(np.sqrt(power.mean())),
            typical_difference=_typical(power),
            agreement=_share(self._same) if chooses else None,
            low=float(min(low.min(), 0)),
            high=float(max(high.max(), 0)),
            # As many values in each example: what they vary inside and from one to the next.
            deviation=float(np.sqrt(variance.mean() + middle.var())),
            step=self._step,
            is_float=self._is_float,
            not_finite=self._not_finite,
            task=self._task,
            score=self._score(self._scores),
            student_score=self._score(self._student_scores),
            rounding_difference=rounding,
            is_probability=self._kind.is_probability,
            channels=channels,
            clear_agreement=self._same_of_clear / self._clear if is_clear else None,
        )

    def _count_clear(self, task: str, expected: np.ndarray, same: np.ndarray) -> None:
        if not self._is_float:
            return
        assert self._threshold is not None  # `add` sets it first.
        lead = leads(task, expected, self._threshold)
        if self._clear_lead is None:
            # What is usual shows in the first batch; of dense outputs not all fit into memory.
            self._clear_lead = _CLEAR_LEAD * float(np.median(lead))
        clear = lead > self._clear_lead
        self._clear += int(clear.sum())
        self._same_of_clear += int((clear & same).sum())

    def _of_channels(self) -> tuple[tuple[ChannelDifference, ...], float | None]:
        """Each channel, and what rounding costs in all of them together."""
        # (quantities, examples, channels)
        power, rounding, middle, variance, low, high = np.concatenate(self._channels, axis=1)
        is_known = bool(np.all(np.isfinite(rounding)))
        channels = tuple(
            ChannelDifference(
                square_difference=float(np.sqrt(power[:, n].mean())),
                typical_difference=_typical(power[:, n]),
                rounding_difference=_typical(rounding[:, n]) if is_known else None,
                deviation=float(np.sqrt(variance[:, n].mean() + middle[:, n].var())),
                extent=float(high[:, n].max() - low[:, n].min()),
            )
            for n in range(power.shape[1])
        )
        return channels, _typical(rounding.mean(axis=1)) if is_known else None

    def _score(self, scores: list[np.ndarray]) -> float | None:
        if self._task is None:
            return None
        values = np.concatenate(scores)
        return summary(self._task, values, np.concatenate(self._y)).value(len(values))

    def _chooses(self, channels: tuple[ChannelDifference, ...]) -> bool:
        if self._task is None and self._kind.chooses is None:
            deviations = [channel.deviation for channel in channels if channel.deviation]
            return max(deviations, default=0) <= _MOST_UNLIKE * min(deviations, default=0)
        return True


def _absolute(received: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The absolute difference: 0 where both are NaN, infinite where one of the two is."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(received - expected)
    equal = (received == expected) | (np.isnan(received) & np.isnan(expected))
    difference[equal] = 0
    difference[np.isnan(difference)] = np.inf
    return difference


def _typical(power: np.ndarray) -> float:
    """The root of what error power stays below in nine of ten examples."""
    return float(np.quantile(np.sqrt(power), _TYPICAL_SHARE, method="inverted_cdf"))


def _of_channels(
    received: np.ndarray, expected: np.ndarray, rounded: np.ndarray | None
) -> np.ndarray:
    """For each quantity, example and channel of the last axis a number."""
    channels = expected.shape[-1] if expected.ndim > 1 else 1
    shape = (len(expected), -1, channels)
    known = np.where(np.isfinite(expected), expected, 0).reshape(shape)
    power = np.square(_absolute(received, expected)).reshape(shape).mean(axis=1)
    rounding = np.full_like(power, np.nan)
    if rounded is not None:
        difference = _absolute(rounded.astype(np.float64), expected)
        rounding = np.square(difference).reshape(shape).mean(axis=1)
    return np.stack(
        [
            power,
            rounding,
            known.mean(axis=1),
            known.var(axis=1),
            known.min(axis=1),
            known.max(axis=1),
        ]
    )


def _measured(received: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """A row of numbers for each example."""
    received, expected = (values.reshape(len(values), -1) for values in (received, expected))
    difference = _absolute(received, expected)
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


def _check_same_outputs(received: Outputs, expected: Outputs) -> None:
    shapes = [{name: array.shape for name, array in each.items()} for each in (received, expected)]
    if shapes[0] != shapes[1]:
        raise problem(
            f"a file with the outputs {shapes[0]}",
            f"those that it is compared with, {shapes[1]}",
            "pass the student that the file was made from",
        )


def _share(flags: list[np.ndarray]) -> float:
    return float(np.concatenate([flag.ravel() for flag in flags]).mean())


def _mean(shares: list[Any]) -> float | None:
    return float(np.mean(shares)) if shares else None
