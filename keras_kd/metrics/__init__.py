"""Measures of a model's outputs by task, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_kd._lazy import lazy_names, publish
from keras_kd.metrics.intervals import Estimate, estimate
from keras_kd.metrics.measures import MEASURES, OF_TEACHER, Measure, measures_of
from keras_kd.metrics.statistics import Answers, Statistic
from keras_kd.metrics.tasks import TASKS, labels_by_output, labels_for, task_of

if TYPE_CHECKING:
    from keras_kd.metrics.agreement import Agreement

__all__ = [
    "MEASURES",
    "OF_TEACHER",
    "TASKS",
    "Agreement",
    "Answers",
    "Estimate",
    "Measure",
    "Statistic",
    "accuracy",
    "estimate",
    "labels_by_output",
    "labels_for",
    "measure",
    "task_of",
]


def measure(
    outputs: np.ndarray, y: Any = None, *, task: str | None = None, x: Any = None
) -> dict[str, float]:
    """All measures of a task for the outputs of one model.

    Args:
        outputs: what the model gives, shaped (examples, ...): logits, probabilities or numbers.
        y: the right classes, labels, relevances or targets; see `task_of`. For reconstruction
            None, or 1 for each anomaly and 0 for other examples.
        task: one of `TASKS`. None: `task_of(outputs, y)`.
        x: for reconstruction the inputs, in the shape of the outputs.

    Returns:
        Numbers by the names in `MEASURES`. Shares are from 0 to 1.

    Raises:
        ValueError: if the labels do not fit the outputs or the task.

    Example:
        ```python
        metrics.measure(model.predict(x_test), y_test)  # {"accuracy": 0.98, "f1": 0.979, ...}
        ```
    """
    outputs = np.asarray(outputs)
    target = None if x is None else np.asarray(x)
    known = labels_by_output(y, ["output"], len(outputs)).get("output")
    shapes = [] if target is None else [target.shape[1:]]
    task = task or task_of(outputs, known, shapes)
    if known is not None:
        known = labels_for(task, known, outputs, "output")
    answers = Answers(task, outputs, known, target)
    found = {each.name: each.of(answers) for each in measures_of(answers)}
    return {
        name: statistic.value(answers.units)
        for name, statistic in found.items()
        if statistic is not None
    }


def accuracy(outputs: np.ndarray, y: Any) -> float:
    """The share of examples (or pixels, or words) for which a classifier chooses the class, 0..1.

    Args:
        outputs: shape (examples, ..., classes), or one score shaped (examples,) or (examples, 1).
        y: class numbers, or one-hot rows.

    Raises:
        ValueError: if the labels do not fit.
    """
    return measure(outputs, y, task="classification")["accuracy"]


publish(__name__, __all__)
# It needs Keras, which the other measures do not import.
__getattr__, __dir__ = lazy_names(__name__, {"Agreement": "agreement"})
