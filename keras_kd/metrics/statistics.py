"""Formulas of the measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from keras_kd.metrics.tasks import CLASSIFYING, decisions, is_distribution, places

# Equal parts of the confidences from 0 to 1, as in Guo et al., 2017.
CALIBRATION_BINS = 15
# Ranks below this one do not count in NDCG.
RANKS = 10


class Statistic(NamedTuple):
    """A number that is computed from weighted examples.

    Attributes:
        of: from the weights of the examples, shaped (examples,), to the number. NaN if these
            weights leave it undefined.
        hits: 0 or 1 for each example where the number is their share; else None.
    """

    of: Callable[[np.ndarray], float]
    hits: np.ndarray | None = None

    def value(self, examples: int) -> float:
        """The number with every example counted once."""
        return float(self.of(np.ones(examples)))


@dataclass(frozen=True, eq=False)
class Answers:
    """What one output of a model gives, and what it should give.

    Attributes:
        task: one of `TASKS`.
        outputs: shaped (examples, ...). For ranking with `groups` one score for each example.
        y: as `labels_for` returns them; None without labels.
        target: for reconstruction the input, in the shape of the outputs.
        groups: for ranking, the query that each example belongs to; None where each row of the
            outputs is one query.
        threshold: from where on a single number means yes; None: from the outputs.
    """

    task: str
    outputs: np.ndarray
    y: Any = None
    target: np.ndarray | None = None
    groups: np.ndarray | None = None
    threshold: float | None = None

    @cached_property
    def units(self) -> int:
        """How many things are counted: examples, or queries."""
        return len(self.queries) if self.groups is not None else len(self.outputs)

    @cached_property
    def decided(self) -> np.ndarray:
        """`decisions` of the outputs."""
        return decisions(self.task, self.outputs, self.threshold)

    @cached_property
    def classes(self) -> int:
        """How many classes there are."""
        if self.outputs.dtype.kind in "biu":
            known = [self.outputs.max(initial=0)]
            known += [] if self.y is None else [self.y.max(initial=0)]
            return int(max(known)) + 1
        return max(self.outputs.shape[-1] if self.outputs.ndim > 1 else 1, 2)

    @property
    def probabilities(self) -> np.ndarray | None:
        """Shaped (examples, ..., classes); None where the outputs are class numbers."""
        return None if self.outputs.dtype.kind in "biu" else probabilities(self.outputs)

    @cached_property
    def queries(self) -> list[np.ndarray]:
        """For ranking, which elements of the flat outputs belong to each query."""
        if self.groups is None:
            count, items = self.outputs.shape
            return list(np.arange(count * items).reshape(count, items))
        order = np.argsort(self.groups, kind="stable")
        edges = np.flatnonzero(np.diff(self.groups[order])) + 1
        return np.split(order, edges)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Scores as probabilities: unchanged if they are, else their softmax or sigmoid.

    Args:
        scores: shape (examples, ..., classes), logits or probabilities; or one number for each
            example, (examples,) or (examples, 1), the score of the second of two classes.

    Returns:
        float64, shape (examples, ..., classes), with two classes for one number.
    """
    scores = np.asarray(scores, "float64")
    if scores.ndim == 1 or scores.shape[-1] == 1:
        single = scores.reshape(places(scores.shape))
        if not (single.size and single.min() >= 0 and single.max() <= 1):
            # Written so that large numbers of both signs stay finite.
            single = np.exp(-np.logaddexp(0, -single))
        return np.stack([1 - single, single], axis=-1)
    if is_distribution(scores):
        return scores / scores.sum(axis=-1, keepdims=True)
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def mean(values: np.ndarray) -> Statistic:
    """The mean of one number for each example; those for which it is NaN do not count."""
    values = np.asarray(values, "float64")
    counts = ~np.isnan(values)
    known = np.where(counts, values, 0)

    def of(weights: np.ndarray) -> float:
        total = weights @ counts
        return float(weights @ known / total) if total else float("nan")

    return Statistic(of)


def share(values: np.ndarray) -> Statistic:
    """The mean of what is right in each example: all or nothing, or a part of its pixels."""
    values = np.asarray(values, "float64")
    return mean(values)._replace(hits=values if np.isin(values, (0, 1)).all() else None)


def score_examples(answers: Answers) -> np.ndarray:
    """The part that each example has in the first measure of its task, shaped (units,).

    For classification and multilabel the share of its decisions that are right, for regression the
    mean absolute error, for reconstruction the mean square error, for ranking the NDCG of each
    query, NaN where nothing is relevant.
    """
    if answers.task == "ranking":
        return np.array([_ndcg(*query) for query in _ranked(answers)])
    if answers.task == "regression":
        return _per_example(np.abs(answers.outputs.astype("float64") - answers.y))
    if answers.task == "reconstruction":
        return _per_example(np.square(answers.outputs.astype("float64") - answers.target))
    return _per_example(answers.decided == answers.y)


def summary(task: str, scores: np.ndarray, y: np.ndarray | None) -> Statistic:
    """The first measure of a task, from what `score_examples` gives."""
    if task == "reconstruction" and y is not None:
        return area_under_curve(scores, y)
    return share(scores) if task in CLASSIFYING else mean(scores)


def area_under_curve(scores: np.ndarray, y: np.ndarray) -> Statistic:
    """The area under the ROC curve: how often a 1 has a higher score than a 0; ties count half.

    Args:
        scores: shape (examples,).
        y: 0 or 1, shape (examples,).
    """
    _, rank = np.unique(scores, return_inverse=True)
    positive = np.asarray(y) == 1

    def of(weights: np.ndarray) -> float:
        above = np.bincount(rank, weights * positive)
        below = np.bincount(rank, weights * ~positive)
        pairs = above.sum() * below.sum()
        if not pairs:
            return float("nan")
        return float(above @ (np.cumsum(below) - below / 2) / pairs)

    return Statistic(of)


def macro_f1(answers: Answers) -> Statistic:
    """The unweighted mean of F1 = 2TP / (2TP + FP + FN) over the classes that occur.

    A class occurs if an example has it or a model chose it, as in scikit-learn. For multilabel the
    classes are the columns.
    """
    if answers.task == "multilabel":
        columns = answers.y.shape[-1]
        right, chosen, true = (
            _sums(values.reshape(len(values), -1, columns).sum(axis=1))
            for values in (
                answers.decided * answers.y,
                answers.decided,
                answers.y,
            )
        )
    else:
        hits = answers.decided == answers.y
        right = _counts(answers.y, answers.classes, hits)
        chosen = _counts(answers.decided, answers.classes)
        true = _counts(answers.y, answers.classes)

    def of(weights: np.ndarray) -> float:
        total = chosen(weights) + true(weights)
        occurs = total > 0
        return float(np.mean(2 * right(weights)[occurs] / total[occurs]))

    return Statistic(of)


def calibration_error(answers: Answers) -> Statistic | None:
    """The expected calibration error: how far confidence and accuracy are apart, on average.

    Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3, with
    `CALIBRATION_BINS` bins. The confidence is the probability of the class that is chosen.
    """
    bins = _confidence_bins(answers)
    if bins is None:
        return None
    number, confidence, hits = bins
    each = len(number) // max(1, len(answers.outputs))

    def of(weights: np.ndarray) -> float:
        gap = np.bincount(number, np.repeat(weights, each) * (hits - confidence))
        return float(np.abs(gap).sum() / (weights.sum() * each))

    return Statistic(of)


def reliability(answers: Answers) -> list[tuple[int, float, float]]:
    """For each bin of confidences that is not empty: examples, mean confidence, accuracy."""
    bins = _confidence_bins(answers)
    if bins is None:
        return []
    number, confidence, hits = bins
    return [
        (int(inside.sum()), float(confidence[inside].mean()), float(hits[inside].mean()))
        for inside in (number == each for each in range(CALIBRATION_BINS))
        if inside.any()
    ]


def per_class(answers: Answers) -> tuple[float, ...]:
    """The accuracy on each class; NaN for a class without examples.

    For classification the share of the examples of a class that are right (recall). For multilabel
    the share of examples for which the decision on a label is right.
    """
    hits = (answers.decided == answers.y).astype("float64")
    if answers.task == "multilabel":
        return tuple(map(float, hits.reshape(-1, hits.shape[-1]).mean(axis=0)))
    y = answers.y.ravel()
    right = np.bincount(y, hits.ravel(), answers.classes)
    count = np.bincount(y, minlength=answers.classes)
    shares = np.divide(right, count, out=np.full(len(count), np.nan), where=count > 0)
    return tuple(map(float, shares))


def confusion(answers: Answers) -> tuple[tuple[int, ...], ...]:
    """How many examples of each class (rows) were taken for each class (columns)."""
    classes = answers.classes
    pairs = answers.y.ravel() * classes + answers.decided.ravel()
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(map(int, row)) for row in counts)


def agreement(answers: Answers, teacher: Answers) -> Statistic:
    """The share of decisions that are those of the teacher."""
    if answers.task == "ranking":
        chosen = [
            [int(query[flat[query].argmax()]) for query in answers.queries]
            for flat in (answers.outputs.ravel(), teacher.outputs.ravel())
        ]
        return share(np.equal(chosen[0], chosen[1]))
    return share(_per_example(answers.decided == teacher.decided))


def divergence(answers: Answers, teacher: Answers) -> Statistic | None:
    """The mean Kullback-Leibler divergence KL(teacher || model) in nats: 0 is a perfect copy."""
    if answers.probabilities is None or teacher.probabilities is None:
        return None
    # An int8 softmax gives exact zeros below half of its step of 1/256: half a step represents
    # them, since infinity for one rounded probability would hide the others.
    floor = 1 / 512
    model, other = (
        np.maximum(each, floor) for each in (answers.probabilities, teacher.probabilities)
    )
    model /= model.sum(axis=-1, keepdims=True)
    other /= other.sum(axis=-1, keepdims=True)
    return mean(_per_example(np.sum(other * np.log(other / model), axis=-1)))


def distance(answers: Answers, teacher: Answers) -> Statistic:
    """The mean absolute difference between the outputs of a model and of its teacher."""
    return mean(_per_example(np.abs(answers.outputs.astype("float64") - teacher.outputs)))


def first_measure(answers: Answers) -> Statistic:
    """The first measure of the task."""
    return summary(answers.task, score_examples(answers), answers.y)


def binary_area(answers: Answers) -> Statistic | None:
    """For two classes and one decision for each example."""
    if answers.probabilities is None or answers.classes != 2 or answers.y.ndim != 1:
        return None
    return area_under_curve(answers.probabilities[:, 1], answers.y)


def all_right(answers: Answers) -> Statistic:
    """The share of examples with nothing wrong."""
    return share(_per_example(answers.decided == answers.y) == 1)


def root_mean_square(answers: Answers) -> Statistic:
    """The root of the mean square error of each column (or channel), the mean over these."""
    total = _sums(_of_columns(np.square(answers.outputs.astype("float64") - answers.y)))
    return Statistic(lambda weights: float(np.sqrt(total(weights) / weights.sum()).mean()))


def determination(answers: Answers) -> Statistic:
    """R squared: the share of the variance that is explained, the mean over columns (channels)."""
    y = answers.y
    # Sums of squares lose digits beside a large mean.
    y = y - y.mean(axis=tuple(range(max(1, y.ndim - 1))))
    errors = answers.outputs.astype("float64") - answers.y
    error, first, second = (
        _sums(_of_columns(each)) for each in (np.square(errors), y, np.square(y))
    )

    def of(weights: np.ndarray) -> float:
        left = error(weights)
        spread = second(weights) - first(weights) ** 2 / weights.sum()
        # scikit-learn's convention for a constant column: 1 if it is met exactly, else 0.
        varies = spread > 1e-12 * np.maximum(second(weights), 1e-300)
        shares = np.where(left == 0, 1.0, 0.0)
        shares[varies] = 1 - left[varies] / spread[varies]
        return float(shares.mean())

    return Statistic(of)


def reciprocal_ranks(answers: Answers) -> Statistic:
    """The mean over queries of 1 / rank of the first relevant item."""
    return mean(np.array([_reciprocal_rank(*query) for query in _ranked(answers)]))


def _ranked(answers: Answers) -> list[tuple[np.ndarray, np.ndarray]]:
    """The scores and the relevances of each query."""
    scores, relevances = answers.outputs.ravel(), answers.y.ravel()
    return [(scores[query], relevances[query]) for query in answers.queries]


def _ndcg(scores: np.ndarray, relevances: np.ndarray) -> float:
    """The discounted gain of an order beside that of the best one; NaN where nothing is relevant.

    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques", 2002: the gain is
    the relevance, the discount log2 of the rank. As in scikit-learn, items of equal score share the
    mean of their gains.
    """
    discounts = 1 / np.log2(np.arange(len(scores)) + 2)
    discounts[RANKS:] = 0
    best = float(np.sort(relevances)[::-1] @ discounts)
    if not best:
        return float("nan")
    _, tie, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    gains = np.bincount(tie, relevances) / sizes
    return float(np.repeat(gains, sizes) @ discounts / best)


def _reciprocal_rank(scores: np.ndarray, relevances: np.ndarray) -> float:
    """1 / rank of the first relevant item, at the middle of those of equal score; NaN likewise."""
    if not relevances.any():
        return float("nan")
    best = scores[relevances > 0].max()
    ties = np.sum((scores == best) & (relevances == 0))
    return float(1 / (1 + np.sum(scores > best) + ties / 2))


def _confidence_bins(answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The number of its bin, the confidence and whether it is right, for each decision."""
    if answers.probabilities is None:
        return None
    confidence = answers.probabilities.max(axis=-1).ravel()
    number = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    return number.astype(int), confidence, (answers.decided == answers.y).ravel()


def _per_example(values: np.ndarray) -> np.ndarray:
    """The mean of each example."""
    return values.reshape(len(values), -1).mean(axis=1, dtype="float64")


def _of_columns(values: np.ndarray) -> np.ndarray:
    """The mean of each column (channel of the last axis) in each example."""
    columns = values.shape[-1] if values.ndim > 1 else 1
    return values.reshape(len(values), -1, columns).mean(axis=1)


def _sums(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The weighted sum of each column."""
    values = values.astype("float64")
    return lambda weights: weights @ values


def _counts(
    numbers: np.ndarray, classes: int, counted: np.ndarray | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """How often each class occurs, with the weights of the examples."""
    flat = numbers.ravel()
    each = len(flat) // max(1, len(numbers))
    kept = np.ones(len(flat)) if counted is None else counted.ravel().astype("float64")
    return lambda weights: np.bincount(flat, np.repeat(weights, each) * kept, classes)
