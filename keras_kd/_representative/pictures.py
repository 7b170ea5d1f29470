"""Representative data that a user names instead of loading: images on the disk."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem, three_parts
from keras_kd._examples import InputInfo
from keras_kd._representative.preprocessing import first_scaling, scaled_by
from keras_kd._representative.ranges import Ranges
from keras_kd.data.images import CHANNELS, load_images
from keras_kd.data.named import is_name, load_named_images

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
