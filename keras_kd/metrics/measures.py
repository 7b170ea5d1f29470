"""The measures of each task, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from keras_kd.metrics.statistics import (
    RANKS,
    Answers,
    Statistic,
    agreement,
    all_right,
    binary_area,
    calibration_error,
    determination,
    distance,
    divergence,
    first_measure,
    macro_f1,
    mean,
    reciprocal_ranks,
    root_mean_square,
    score_examples,
)


@dataclass(frozen=True)
class Measure:
    """One column of numbers.

    Attributes:
        name: the key under which it is found.
        heading: what a table calls it.
        meaning: what it is, in a few words.
        of: from `Answers`, for a measure of `OF_TEACHER` also from those of the teacher, to the
            `Statistic`; None where it does not apply.
        is_share: whether it is a share of 1, shown in percent.
        higher_is_better: whether more is better.
        is_detail: whether a table for the terminal leaves it out.
    """

    name: str
    heading: str
    meaning: str
    of: Callable[..., Statistic | None]
    is_share: bool = True
    higher_is_better: bool = True
    is_detail: bool = False

    def write(self, value: float) -> str:
        """The number as a table shows it: 0.9745 as "97.45", an error with four digits."""
        return f"{100 * value:.2f}" if self.is_share else f"{value:.4g}"

    def write_with_unit(self, value: float) -> str:
        """The number as a sentence shows it: "97.45 %"."""
        return f"{self.write(value)} %" if self.is_share else self.write(value)


_ERROR = Measure(
    "mse",
    "MSE",
    "mean square difference between outputs and inputs",
    lambda answers: mean(score_examples(answers)),
    is_share=False,
    higher_is_better=False,
)
# The first measure of a task represents it; those that do not apply are left out.
MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "classification": (
        Measure("accuracy", "accuracy", "share of test examples it gets right", first_measure),
        Measure("f1", "F1", "macro F1: precision and recall, averaged over the classes", macro_f1),
        Measure("auc", "AUC", "area under the ROC curve of the second class", binary_area),
        Measure(
            "ece",
            "ECE",
            "expected calibration error: how far confidence and accuracy are apart",
            calibration_error,
            higher_is_better=False,
            is_detail=True,
        ),
    ),
    "multilabel": (
        Measure("accuracy", "accuracy", "share of the labels of all examples it gets right",
                first_measure),
        Measure("exact", "all right", "share of examples with all of their labels right",
                all_right),
        Measure("f1", "F1", "macro F1: precision and recall, averaged over the labels", macro_f1),
    ),
    "ranking": (
        Measure("ndcg", f"NDCG@{RANKS}", f"discounted gain of the first {RANKS} beside the best",
                first_measure),
        Measure("mrr", "MRR", "mean of 1 / rank of the first relevant item",
                reciprocal_ranks),
    ),
    "regression": (
        Measure("mae", "MAE", "mean absolute error", first_measure,
                is_share=False, higher_is_better=False),
        Measure("rmse", "RMSE", "root mean square error", root_mean_square,
                is_share=False, higher_is_better=False),
        Measure("r2", "R²", "share of the variance of the targets that it explains",
                determination, is_share=False),
    ),
    "reconstruction": (
        Measure(
            "auc",
            "AUC",
            "area under the ROC curve of the square error: how well it separates anomalies",
            first_measure,
        ),
        _ERROR,
    ),
}  # fmt: skip
_AGREEMENT = Measure(
    "agreement",
    "agrees",
    "share of decisions that are those of the teacher",
    agreement,
)
_DIVERGENCE = Measure(
    "divergence",
    "KL",
    "mean Kullback-Leibler divergence of its probabilities from the teacher's, in nats",
    divergence,
    is_share=False,
    higher_is_better=False,
    is_detail=True,
)
_DISTANCE = Measure(
    "distance",
    "distance",
    "mean absolute difference from the outputs of the teacher",
    distance,
    is_share=False,
    higher_is_better=False,
)
# Likewise, of a model and its teacher.
OF_TEACHER: Mapping[str, tuple[Measure, ...]] = {
    "classification": (_AGREEMENT, _DIVERGENCE),
    "multilabel": (_AGREEMENT,),
    "ranking": (replace(_AGREEMENT, meaning="share of queries with the teacher's item first"),),
    "regression": (_DISTANCE,),
    "reconstruction": (_DISTANCE,),
}


def measures_of(answers: Answers) -> tuple[Measure, ...]:
    """What can be measured: nothing without labels, but the error of a reconstruction."""
    if answers.y is None:
        return (_ERROR,) if answers.task == "reconstruction" else ()
    return MEASURES[answers.task]


def main_measure(task: str, has_labels: bool) -> Measure:
    """The measure that represents the quality of a model, the first one of its task."""
    if task == "reconstruction" and not has_labels:
        return _ERROR
    return MEASURES[task][0]
