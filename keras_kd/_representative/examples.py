"""Representative data in any form: at most some hundred checked examples by input name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._examples import InputInfo, examples_by_name
from keras_kd._representative.evidence import warn_of_other_data
from keras_kd._representative.pictures import load_pictures
from keras_kd._representative.ranges import InputRange, check_in_ranges, checked_ranges
from keras_kd.data.examples import load_examples

# Ranges hardly move after some hundred examples, and each one costs a run of the float model.
MAX_EXAMPLES = 500
_SOURCE = "representative_data"


def representative_examples(
    data: Any,
    inputs: Sequence[InputInfo],
    *,
    input_range: InputRange = None,
    student: Any = None,
) -> dict[str, np.ndarray]:
    """At most `MAX_EXAMPLES` checked examples by input name, shaped (examples, ...).

    Args:
        data: an array shaped (examples, ...), a dict of arrays by input name, or an iterable of
            batches such as a `tf.data.Dataset` or a generator. A batch is an array or a dict; of a
            tuple, as in `fit`, only the first part is used. Of arrays, evenly spaced examples are
            taken, of batches the first. Or a path or a name: a `.npy` or `.npz` file with such
            arrays, a directory of images (`keras_kd.data.images.load_images`), or a data set that
            TFDS keeps on the disk, such as "mnist" or "cifar10:test". Images are resized to the
            student's input and scaled to `input_range`; without it they stay at 0..255 for a
            student that begins with a Rescaling or Normalization for that, and for others are
            scaled to 0..1, with a warning.
        inputs: what the student takes, in the order of its inputs.
        input_range: (low, high), the range that the student was trained on; a dict by input name
            where there are several. Data that are scaled in another way are refused, and there is a
            warning if more than 1 % of the values lie outside.
        student: the model, for which the data are checked where no range is given: a warning says
            if its first BatchNormalization has seen other values in training, or if images are
            scaled in a way that hardly any student is trained on.

    Raises:
        TypeError: if `data` is none of these.
        FileNotFoundError: if there is no such file, directory or data set.
        ValueError: if there is nothing in it, or if names, shapes, types, values or the range do
            not fit.
    """
    ranges = checked_ranges(input_range, [tensor.name for tensor in inputs])
    if isinstance(data, str | os.PathLike):
        if Path(data).suffix in (".npy", ".npz"):
            data = load_examples(data)
        else:
            data = load_pictures(data, inputs, MAX_EXAMPLES, ranges, student)
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        examples = _evenly_spaced(examples_by_name(data, inputs, _SOURCE))
    elif isinstance(data, Iterable) and not isinstance(data, bytes):
        examples = _first(data, inputs)
    else:
        raise TypeError(
            problem(
                f"{_SOURCE} of type {type(data).__name__}",
                "an array, a dict of arrays, a tf.data.Dataset, a generator of batches, a "
                "directory of images or the name of a data set",
                "pass some hundred training examples, for example x_train[:500]",
            )
        )
    _check_informative(examples)
    check_in_ranges(examples, ranges)
    if student is not None and input_range is None:
        warn_of_other_data(examples, inputs, student)
    return examples


def _evenly_spaced(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = len(next(iter(arrays.values())))
    chosen = np.linspace(0, count - 1, min(count, MAX_EXAMPLES)).round().astype(int)
    return {name: array[chosen] for name, array in arrays.items()}


def _first(batches: Iterable[Any], inputs: Sequence[InputInfo]) -> dict[str, np.ndarray]:
    collected: list[dict[str, np.ndarray]] = []
    count = 0
    for batch in _without_labels(batches):
        collected.append(examples_by_name(batch, inputs, f"a batch of {_SOURCE}"))
        count += len(next(iter(collected[-1].values())))
        if count >= MAX_EXAMPLES:
            break
    return {
        tensor.name: np.concatenate(
            [batch[tensor.name] for batch in collected] or [np.empty((0, *tensor.shape[1:]))]
        )[:MAX_EXAMPLES]
        for tensor in inputs
    }


def _without_labels(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple) else batch


def _check_informative(examples: dict[str, np.ndarray]) -> None:
    fix = "pass some hundred training examples, for example x_train[:500]"
    if any(len(array) == 0 for array in examples.values()):
        # The converter would return the float model without a word.
        raise ValueError(problem(f"{_SOURCE} without an example", "at least one", fix))
    real = [array for array in examples.values() if np.issubdtype(array.dtype, np.floating)]
    if real and all(array.min() == array.max() for array in real):
        raise ValueError(
            problem(
                f"{_SOURCE} in which every value is {real[0].flat[0]}",
                "examples like those that the student was trained on",
                fix,
            )
        )
