"""The task of an output, and its labels in the form that the measures of this task take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd._examples import check_finite, check_numbers

TASKS = ("classification", "multilabel", "ranking", "regression", "reconstruction")
# Tasks that are measured by their accuracy.
CLASSIFYING = ("classification", "multilabel")
# Tasks in which an output decides something; in the others it is a single number.
DECIDING = (*CLASSIFYING, "ranking")
# Softmax of float32, or of int8 with its steps of 1/256, adds up to 1 only about.
_SUM_TOLERANCE = 0.05


def task_of(
    outputs: np.ndarray, y: np.ndarray | None, input_shapes: Iterable[Sequence[Any]] = ()
) -> str:
    """The task that an output solves, from its values and from its labels.

    With labels:

    - classification: a class number for each example, pixel or word; one-hot rows; rows that add up
      to 1, as the outputs do; 0 or 1 for outputs of one column;
    - multilabel: only 0 and 1, in the shape of the outputs, and not one-hot;
    - reconstruction: 0 or 1 for each example, for outputs that have the shape of an input and are
      no probabilities of classes;
    - regression: other numbers in the shape of the outputs.

    Without labels: classification where the outputs are class numbers or add up to 1,
    reconstruction where they have the shape of an input, else regression.

    Ranking is never derived: its labels look like those of other tasks.

    Args:
        outputs: what a model gives for some examples, shaped (examples, ...).
        y: for these or for more examples, shaped (examples, ...).
        input_shapes: the shapes of the model's inputs without their first axis.

    Raises:
        ValueError: if the labels fit no task.
    """
    shape = outputs.shape[1:]
    is_input = shape in [tuple(each) for each in input_shapes] and np.prod(shape) > 1
    adds_up = is_distribution(outputs)
    if y is None:
        if adds_up or outputs.dtype.kind in "iu":
            return "classification"
        return "reconstruction" if is_input else "regression"
    binary = bool(np.isin(y, (0, 1)).all())
    if is_input and binary and not adds_up and _is_column(y):
        return "reconstruction"
    places, columns = shape[:-1], shape[-1] if shape else 1
    if outputs.dtype.kind in "biu" and y.shape[1:] in (shape, (*shape, 1)):
        return "classification"
    if columns == 1 and y.shape[1:] in (places, (*places, 1)):
        return "classification" if binary else "regression"
    if y.shape[1:] == shape:
        if binary:
            return "classification" if np.all(y.sum(axis=-1) == 1) else "multilabel"
        return "classification" if adds_up and is_distribution(y) else "regression"
    if y.shape[1:] in (places, (*places, 1)):
        return "classification"
    raise problem(
        f"labels of shape {y.shape} for outputs of shape {outputs.shape}",
        f"a class for each example, shaped {(len(y), *places)}, or numbers shaped "
        f"{(len(y), *shape)}",
        "pass the labels that the model was trained on",
    )


def is_distribution(values: np.ndarray) -> bool:
    """Whether the rows of `values`, shaped (examples, ..., classes), are probabilities of classes.

    They are not negative and add up to 1, up to the rounding of 8-bit integers.
    """
    if values.ndim < 2 or values.shape[-1] < 2 or values.dtype.kind != "f" or not values.size:
        return False
    return bool(values.min() >= 0 and np.all(np.abs(values.sum(axis=-1) - 1) < _SUM_TOLERANCE))


def threshold_of(values: np.ndarray) -> float:
    """From where on a single number means yes: 0.5 for probabilities, 0 for logits.

    Numbers that are all from 0 to 1 are probabilities.
    """
    return 0.5 if values.size and values.min() >= 0 and values.max() <= 1 else 0.0


def decisions(task: str, values: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """What outputs decide.

    Args:
        task: one of `DECIDING`.
        values: shaped (examples, ..., columns); integers are classes that the model has chosen.
        threshold: from where on a single number means yes. None: `threshold_of(values)`.

    Returns:
        For classification class numbers, shaped (examples, ...): the column with the largest value,
        or whether a single column is above the threshold. For multilabel 0 or 1 for each value. For
        ranking the item with the largest value in each row.
    """
    if values.dtype.kind in "biu":
        return values
    if task == "multilabel" or (task == "classification" and _columns(values.shape) == 1):
        chosen = values > (threshold_of(values) if threshold is None else threshold)
        shape = values.shape if task == "multilabel" else places(values.shape)
        return chosen.astype(np.int64).reshape(shape)
    return values.argmax(axis=-1)


def leads(task: str, values: np.ndarray, threshold: float) -> np.ndarray:
    """By how much each of the `decisions` of real numbers leads; NaN and infinity count as 0.

    The chosen column is ahead of the second one by that, or a single number of `threshold`.
    """
    values = np.where(np.isfinite(values), values, 0)
    if task == "multilabel" or (task == "classification" and _columns(values.shape) == 1):
        shape = values.shape if task == "multilabel" else places(values.shape)
        return np.abs(values - threshold).reshape(shape)
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], np.inf)
    second, first = np.moveaxis(np.partition(values, -2, axis=-1)[..., -2:], -1, 0)
    return first - second


def check_outputs(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    """Check that what is given by the name of an output names outputs of the model.

    Raises:
        ValueError: if there are others.
    """
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise problem(
            f"{what} for the outputs {unknown}",
            f"some of {list(names)}",
            "use the names of the outputs as keys",
        )


def labels_by_output(y: Any, names: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """The labels of each output that there are labels for.

    Args:
        y: None, an array for a single output, or a dict by output name.
        names: the names of the outputs.
        count: how many examples there are.

    Raises:
        ValueError: if there are too few or too many, or if it is not known what they are for.
    """
    if y is None:
        return {}
    if not isinstance(y, Mapping):
        if len(names) > 1:
            raise problem(
                f"labels of type {type(y).__name__} for a model with {len(names)} outputs",
                f"a dict with some of the keys {list(names)}",
                f"pass {{{names[0]!r}: ...}}",
            )
        y = {names[0]: y}
    check_outputs("labels", y, names)
    arrays = {name: np.asarray(values) for name, values in y.items()}
    for name, array in arrays.items():
        labels = f"labels for the output {name!r}"
        fix = "pass as many labels as examples: x[:500], y[:500]"
        check_numbers(array, count, labels, fix)
        fix = "leave out the examples without a label: numpy.isfinite finds them"
        check_finite(array, labels, fix)
    return arrays


def labels_for(task: str, y: np.ndarray, outputs: np.ndarray, name: str) -> np.ndarray:
    """Labels in the form that the measures of a task take.

    Args:
        task: one of `TASKS`.
        y: shaped (examples, ...).
        outputs: what a model gives for these examples.
        name: the name of the output, for messages.

    Returns:
        For classification class numbers in the shape of the choices; for multilabel 0 or 1, for
        ranking relevances and for regression numbers in the shape of the outputs; for
        reconstruction 0 or 1 shaped (examples,), 1 for an anomaly.

    Raises:
        ValueError: if they have another shape or other values.
    """
    check_choice("task", task, TASKS)
    shape = outputs.shape
    if task == "classification" and outputs.dtype.kind in "biu":
        # The model gives class numbers; how many classes there are is not known.
        if y.shape not in (shape, (*shape, 1)) or np.any(y != np.floor(y)):
            raise _wrong_labels(y, shape, name, f"class numbers of shape {shape}")
        return y.reshape(shape).astype(np.int64)
    if task == "classification":
        return class_numbers(y, shape, name)
    if task == "reconstruction":
        if not _is_column(y) or not np.isin(y, (0, 1)).all():
            raise _wrong_labels(y, shape, name, "1 for each anomaly and 0 for all other examples")
        return y.reshape(len(y)).astype(np.int64)
    if task == "ranking" and len(shape) > 1 and shape[-1] > 1 and _is_column(y):
        relevant = class_numbers(y, shape, name)
        return np.eye(shape[-1])[relevant]
    if y.size != np.prod(shape) or y.shape[:1] != shape[:1]:
        raise _wrong_labels(y, shape, name, f"a number for each output, shaped {shape}")
    if task == "multilabel" and not np.isin(y, (0, 1)).all():
        raise _wrong_labels(y, shape, name, "only 0 and 1 in labels of the task multilabel")
    if task == "ranking" and y.min() < 0:
        raise _wrong_labels(y, shape, name, "relevances of at least 0")
    wanted = np.int64 if task == "multilabel" else np.float64
    return y.reshape(shape).astype(wanted)


def class_numbers(y: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Labels as the numbers of classes, shaped like the choices of an output.

    Args:
        y: numbers shaped (examples, ...) or (examples, ..., 1), or one-hot rows like the
            outputs.
        shape: the shape of the outputs, (examples, ..., classes).
        name: the name of the output, for messages.

    Raises:
        ValueError: if they have another shape or are no numbers of classes.
    """
    wanted, last = places(shape), max(_columns(shape), 2) - 1
    if _columns(shape) > 1 and y.shape == shape:
        return y.argmax(axis=-1)
    if y.shape not in (wanted, (*wanted, 1)):
        raise _wrong_labels(
            y, shape, name, f"class numbers of shape {wanted}, or one-hot rows like the output"
        )
    numbers = y.reshape(wanted)
    if np.any(numbers != np.floor(numbers)) or numbers.min() < 0 or numbers.max() > last:
        raise problem(
            f"labels from {numbers.min():g} to {numbers.max():g} for the output {name!r}",
            f"whole numbers from 0 to {last}, the classes",
            "number the classes from 0; targets of a regression have the shape of the output",
        )
    return numbers.astype(np.int64)


def places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the choices: one for each example, and for each pixel or word in it."""
    return shape[:-1] if len(shape) > 1 else shape


def _columns(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) > 1 else 1


def _is_column(y: np.ndarray) -> bool:
    """Whether there is one label for each example."""
    return y.shape[1:] in ((), (1,))


def _wrong_labels(y: np.ndarray, shape: tuple[int, ...], name: str, expected: str) -> ValueError:
    return problem(
        f"labels of shape {y.shape} for {shape[0]} examples of the output {name!r} of "
        f"shape {shape}",
        expected,
        "pass the labels that the student was trained on",
    )
