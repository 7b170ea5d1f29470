"""Representative data in any form: at most some hundred checked examples by input name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem, three_parts
from keras_kd._examples import InputInfo
from keras_kd._representative.evidence import warn_of_other_data
from keras_kd._representative.pictures import load_pictures
from keras_kd._representative.ranges import InputRange, check_in_ranges, checked_ranges
from keras_kd._representative.sampling import sampled
from keras_kd.data.examples import load_examples

# Ranges hardly move after some hundred examples, and each one costs a run of the float model.
MAX_EXAMPLES = 500
# Of a stream, where a step takes a fraction of a millisecond before 500 of them are chosen.
MAX_STEPS = 10_000
_SOURCE = "representative_data"
_FIX = "pass the training data, for example x_train: a sample is chosen from them"
_SHOWN = 8


def representative_examples(
    data: Any,
    inputs: Sequence[InputInfo],
    *,
    input_range: InputRange = None,
    student: Any = None,
    is_stream: bool = False,
) -> dict[str, np.ndarray]:
    """At most `MAX_EXAMPLES` checked examples by input name, shaped (examples, ...).

    Args:
        data: an array shaped (examples, ...), a dict of arrays by input name, or for several
            inputs a list of arrays in their order; a pair of these and labels, `(x, y)`, as in
            `fit`. Or an iterable of batches: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            generator, or a function without arguments that returns one, such as TFLite's
            `representative_dataset`. A batch is an array, a dict, or a list of an array for each
            input; of a tuple `(x, y)` or `((a, b), y)`, `y` is the labels. From all of them, or
            from the first 10,000 of data of unknown length, a sample is chosen by
            chance, always the same; with labels, each class is in it. Or a path or a name: a
            `.npy` or `.npz` file with such arrays, a directory of images
            (`keras_kd.data.images.load_images`), or a data set that TFDS keeps on the disk, such as
            "mnist" or "cifar10:test". Images are resized to the student's input and scaled to
            `input_range`; without it they stay at 0..255 for a student that begins with a
            Rescaling or Normalization for that, and for others are scaled to 0..1, with a warning.
        inputs: what the student takes, in the order of its inputs.
        input_range: (low, high), the range that the student was trained on; a dict by input name
            where there are several. Data that are scaled in another way are refused, and there is a
            warning if more than 1 % of the values lie outside.
        student: the model, for which the data are checked where no range is given: a warning shows
            if its first BatchNormalization has seen other values in training, or if images are
            scaled in a way that hardly any student is trained on. Where labels are known, another
            warning says if classes of the student are missing from the data.
        is_stream: whether the examples are the steps of a stream: the first `MAX_STEPS` of them in
            their order are returned instead, since each state comes from all steps before it.

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
    most = MAX_STEPS if is_stream else MAX_EXAMPLES
    sample = sampled(data, inputs, most, _SOURCE, in_order=is_stream)
    if sample is None:
        raise problem(
            f"{_SOURCE} of type {type(data).__name__}",
            "an array, a dict or list of arrays, a tf.data.Dataset, a generator of batches or "
            "a function that returns one, a directory of images or the name of a data set",
            _FIX,
            kind=TypeError,
        )
    examples = sample.examples
    _check_informative(examples)
    check_in_ranges(examples, ranges)
    if student is not None and input_range is None:
        warn_of_other_data(examples, inputs, student)
    if student is not None and sample.classes is not None:
        _warn_of_missing_classes(sample.classes, student)
    return examples


def _warn_of_missing_classes(classes: np.ndarray, student: Any) -> None:
    """Warn if there are no examples of some classes, whose activations may go further."""
    shape = getattr(student, "output_shape", None)
    count = shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None
    known = set(map(int, np.unique(classes)))
    # Labels of something else than these classes, or more classes than examples.
    if not count or count < 2 or count > MAX_EXAMPLES or not known <= set(range(count)):
        return
    missing = sorted(set(range(count)) - known)
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN]))
        more = ", ..." if len(missing) > _SHOWN else ""
        warnings.warn(
            three_parts(
                f"{_SOURCE} with {len(known)} of {count} classes, without {shown}{more}",
                "examples of every class: the ranges of activations are read from them",
                "pass all training data, for example (x_train, y_train); a sample is chosen from "
                "them",
            ),
            stacklevel=4,
        )


def _check_informative(examples: dict[str, np.ndarray]) -> None:
    if any(len(array) == 0 for array in examples.values()):
        # The converter would return the float model without a word.
        raise problem(f"{_SOURCE} without an example", "at least one", _FIX)
    real = [array for array in examples.values() if np.issubdtype(array.dtype, np.floating)]
    if real and all(array.min() == array.max() for array in real):
        raise problem(
            f"{_SOURCE} in which every value is {real[0].flat[0]}",
            "examples like those that the student was trained on",
            _FIX,
        )
