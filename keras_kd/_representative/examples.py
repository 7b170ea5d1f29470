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
from keras_kd._representative.evidence import first_scaling, scaled_by, warn_of_other_data
from keras_kd._representative.ranges import InputRange, Ranges, check_in_ranges, checked_ranges
from keras_kd._representative.sampling import sampled
from keras_kd.data.examples import load_examples
from keras_kd.data.images import CHANNELS, load_images
from keras_kd.data.named import is_name, load_named_images

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
            warning lists classes of the student that are missing from the data.
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
        # The converter would return the float model without an error.
        raise problem(f"{_SOURCE} without an example", "at least one", _FIX)
    real = [array for array in examples.values() if np.issubdtype(array.dtype, np.floating)]
    if real and all(array.min() == array.max() for array in real):
        raise problem(
            f"{_SOURCE} in which every value is {real[0].flat[0]}",
            "examples like those that the student was trained on",
            _FIX,
        )


# Above it, pixels of 0..255 are not what a student's preprocessing was made for.
_LARGEST_SCALED = 16.0


def load_pictures(
    source: str | os.PathLike, inputs: Sequence[InputInfo], most: int, ranges: Ranges, student: Any
) -> dict[str, np.ndarray]:
    """Images from a directory or from a data set of TFDS, scaled as the student takes them.

    Args:
        source: a directory of images, or a name such as "mnist" or "cifar10:test".
        inputs: what the student takes: one image.
        most: how many images at most.
        ranges: by input name the range of the student's training, or None. Without it images are
            0..255 for students that begin with a fitting Rescaling or Normalization, else 0..1.
        student: the model, or None if it is not known.

    Raises:
        FileNotFoundError: if there is no such directory and no such data set.
        ValueError: if the student does not take one image, or if images cannot be read.
    """
    tensor = _image_input(source, inputs)
    # `_image_input` takes known sizes only.
    shape = [size for size in tensor.shape[1:] if size is not None]
    path = Path(source).expanduser()
    if path.is_dir():
        pixels = load_images(path, shape, most)
    elif isinstance(source, str) and is_name(source):
        pixels = _load_named(source, shape, most)
    else:
        raise FileNotFoundError(_nowhere(source))
    return {tensor.name: _scaled(pixels, ranges.get(tensor.name), student)}


def _image_input(source: str | os.PathLike, inputs: Sequence[InputInfo]) -> InputInfo:
    described = ", ".join(f"{tensor.name} {tuple(tensor.shape[1:])}" for tensor in inputs)
    tensor = inputs[0]
    sizes = tensor.shape[1:]
    is_image = len(sizes) == 3 and None not in sizes and sizes[-1] in CHANNELS
    if len(inputs) > 1 or not is_image:
        raise problem(
            f"representative_data={str(source)!r} for a student with the inputs {described}",
            "a student with one input of shape (height, width, channels), 1, 3 or 4 channels",
            "pass arrays by input name, or the array that the student takes",
        )
    return tensor


def _load_named(name: str, shape: Sequence[int], most: int) -> np.ndarray:
    try:
        return load_named_images(name, shape, most)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{_nowhere(name)} ({error})") from error


def _nowhere(source: str | os.PathLike) -> str:
    return three_parts(
        f"representative_data={str(source)!r}",
        "a directory of images, the name of a data set in TFDS_DATA_DIR, or a .npy or .npz file",
        "check the path, or pass some hundred training examples",
    )


def _scaled(pixels: np.ndarray, limits: tuple[float, float] | None, student: Any) -> np.ndarray:
    if limits is None and student is not None:
        scaling = first_scaling(student)
        if scaling is not None and np.abs(scaled_by(scaling, pixels[:8])).max() <= _LARGEST_SCALED:
            return pixels
    if limits is None:
        warnings.warn(
            three_parts(
                "images as representative_data for a student whose range of input is not known",
                "input_range=(low, high), the numbers that black and white had in its training",
                "pass input_range=(0, 1) if this is right: they were scaled to 0..1",
            ),
            stacklevel=5,
        )
    low, high = (0.0, 1.0) if limits is None else limits
    return (pixels / np.float32(255) * np.float32(high - low) + np.float32(low)).astype("float32")
