"""Which class is chosen, and which one is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd._checks import problem


def choices(values: np.ndarray, threshold: float) -> np.ndarray:
    """Which class is chosen where, of values shaped (examples, ..., classes).

    One number instead of several classes chooses between 0 and 1: 1 above `threshold`.
    """
    if _classes(values.shape) > 1:
        return values.argmax(axis=-1)
    return (values > threshold).astype(np.int64).reshape(_places(values.shape))


def leads(values: np.ndarray, threshold: float) -> np.ndarray:
    """By how much the chosen class leads where, of values as for `choices`; NaN counts as no lead.

    It is how far it is ahead of the second one, or one number of `threshold`.
    """
    values = np.where(np.isfinite(values), values, 0)
    if _classes(values.shape) > 1:
        second, first = np.moveaxis(np.partition(values, -2, axis=-1)[..., -2:], -1, 0)
        return first - second
    return np.abs(values - threshold).reshape(_places(values.shape))


def labels_by_output(labels: Any, names: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """The labels of each output that there are labels for.

    Args:
        labels: None, an array for a single output, or a dict by output name.
        names: the names of the outputs.
        count: how many examples there are.

    Raises:
        ValueError: if there are too few or too many, or if it is not known what they are for.
    """
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        if len(names) > 1:
            raise ValueError(
                problem(
                    f"labels of type {type(labels).__name__} for a file with {len(names)} outputs",
                    f"a dict with some of the keys {list(names)}",
                    f"pass labels={{{names[0]!r}: ...}}",
                )
            )
        labels = {names[0]: labels}
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(
            problem(
                f"labels for the outputs {unknown}",
                f"some of {list(names)}",
                "use the names of the file's outputs as keys",
            )
        )
    arrays = {name: np.asarray(values) for name, values in labels.items()}
    for name, array in arrays.items():
        if array.shape[:1] != (count,) or array.dtype.kind not in "biuf":
            raise ValueError(
                problem(
                    f"labels of shape {array.shape} and type {array.dtype} for the output "
                    f"{name!r} and {count} examples",
                    "the number of a class for each example",
                    "pass as many labels as examples: x[:500], labels[:500]",
                )
            )
    return arrays


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
    places, last = _places(shape), max(_classes(shape), 2) - 1
    if _classes(shape) > 1 and labels.shape == shape:
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
    numbers = labels.reshape(places)
    if np.any(numbers != np.floor(numbers)) or numbers.min() < 0 or numbers.max() > last:
        raise ValueError(
            problem(
                f"labels from {numbers.min():g} to {numbers.max():g} for the output {name!r}",
                f"whole numbers from 0 to {last}, the classes",
                "number the classes from 0; leave labels out if the student does not classify",
            )
        )
    return numbers.astype(np.int64)


def _classes(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) > 1 else 1


def _places(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the choices: one for each example, and for each pixel or word in it."""
    return shape[:-1] if len(shape) > 1 else shape
