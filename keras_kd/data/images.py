"""Images from a directory, in the shape of a model's input."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from keras_kd._checks import check_integer, one_line, problem
from keras_kd._files import files_below
from keras_kd._memory import check_expansion
from keras_kd._progress import with_progress

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
CHANNELS = (1, 3, 4)
_MOST_NAMED = 5


def load_images(
    directory: str | os.PathLike, shape: Sequence[int], most: int | None = None
) -> np.ndarray:
    """Load images from a directory and the directories in it, resized to what a model takes.

    Files are taken in the order of their paths; of animations the first frame. Images are stretched
    to the shape, with antialiasing. Transparency is dropped, and color becomes grey by its
    luminance, where the model does not take it. Names that begin with a dot are skipped.

    Args:
        directory: holds files that end in .png, .jpg, .jpeg, .bmp or .gif, whether in directories
            of classes or not.
        shape: (height, width, channels) of the result; 1, 3 or 4 channels.
        most: how many images at most. They are as many of each directory as it has, evenly spaced
            in it. None: all.

    Returns:
        float32 in 0..255, shape (images, height, width, channels).

    Raises:
        FileNotFoundError: if there is no such directory.
        ValueError: if there is no image in it, if some cannot be read, or if the shape is another.
    """
    height, width, channels = _checked_shape(shape)
    found = files_below(Path(directory), SUFFIXES, "images", "an image", "images")
    files = _chosen(found, most)
    images, damaged = [], []
    for file in with_progress(files, "Reading images"):
        try:
            images.append(decode_image(file.read_bytes(), (height, width, channels)))
        except ValueError as error:
            damaged.append(f"{file} ({error})")
    if damaged:
        more = f" and {len(damaged) - _MOST_NAMED} more" if len(damaged) > _MOST_NAMED else ""
        raise problem(
            f"images that cannot be read: {', '.join(damaged[:_MOST_NAMED])}{more}",
            "undamaged images in the format of their file name",
            "delete them or copy them again",
        )
    return np.stack(images)


def decode_image(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """The image in the bytes of a file, as in `load_images`.

    Raises:
        ValueError: if it is damaged or of another format, with TensorFlow's message, or if it has
            far more pixels than bytes.
    """
    import tensorflow as tf

    check_expansion("the image", _pixels(content) * max(CHANNELS), len(content))
    height, width, channels = shape
    # TensorFlow turns the four channels of a JPEG for printers into three only on request.
    stored_channels = 3 if tf.io.is_jpeg(content) else 0
    try:
        image = tf.io.decode_image(content, stored_channels, expand_animations=False)
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(one_line(getattr(error, "message", error))[:100]) from error
    resized = tf.image.resize(
        _with_channels(tf.cast(image, tf.float32), channels), (height, width), antialias=True
    )
    return resized.numpy()


def _pixels(content: bytes) -> int:
    """How many pixels an image will have; 0 where its format does not compress."""
    import tensorflow as tf

    if content.startswith(b"\x89PNG"):
        return math.prod(struct.unpack(">II", content[16:24].ljust(8, b"\0")))
    if content.startswith(b"GIF8"):
        return _pixels_of_gif(content)
    if tf.io.is_jpeg(content):
        try:
            return math.prod(tf.io.extract_jpeg_shape(content).numpy()[:2].tolist())
        except tf.errors.OpError:
            pass  # It is damaged, and is not decoded either.
    return 0


def _pixels_of_gif(content: bytes) -> int:
    """Those of the screen or of all frames, whichever are more: all of them are decoded."""
    width, height, flags = struct.unpack("<HHB", content[6:11].ljust(5, b"\0"))
    place = 13 + (3 << (flags % 8 + 1) if flags & 0x80 else 0)
    frames = 0
    while (kind := content[place : place + 1]) in (b"!", b",") and kind:
        if kind == b"!":  # An extension.
            place += 2
        else:
            *frame, flags = struct.unpack("<HHB", content[place + 5 : place + 10].ljust(5, b"\0"))
            frames += math.prod(frame)
            place += 11 + (3 << (flags % 8 + 1) if flags & 0x80 else 0)
        # Blocks of up to 255 bytes, to an empty one.
        while size := content[place : place + 1].rjust(1, b"\0")[0]:
            place += 1 + size
        place += 1
    return max(width * height, frames)


def _checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or None in shape or shape[-1] not in CHANNELS:
        raise problem(
            f"images for an input of shape {tuple(shape)} without the batch",
            "(height, width, channels), all of them known, and 1, 3 or 4 channels",
            "pass arrays that fit instead",
        )
    height, width, channels = shape
    return height, width, channels


def _chosen(files: list[Path], most: int | None) -> list[Path]:
    """As many of each directory, as far as it has them, evenly spaced."""
    if most is None or len(files) <= most:
        return files
    check_integer("most", most, at_least=1, fix="pass a whole number of at least 1")
    groups = [list(group) for _, group in groupby(files, key=lambda path: path.parent)]
    chosen: dict[Path, list[Path]] = {}
    for position, group in enumerate(sorted(groups, key=len)):
        left = most - sum(map(len, chosen.values()))
        share = min(len(group), -(-left // (len(groups) - position)))
        places = np.linspace(0, len(group) - 1, share).round().astype(int)
        chosen[group[0].parent] = [group[place] for place in places]
    return [file for group in groups for file in chosen[group[0].parent]]


def _with_channels(image, channels: int):
    """An image in 0..255 with as many channels as requested; it has 1 to 4: grey, color, alpha."""
    import tensorflow as tf

    stored = image.shape[-1]
    opaque = tf.fill([*image.shape[:-1], 1], 255.0)
    has_alpha = stored in (2, 4)
    colors, alpha = (image[..., :-1], image[..., -1:]) if has_alpha else (image, opaque)
    if channels == 1:
        return colors if colors.shape[-1] == 1 else tf.image.rgb_to_grayscale(colors)
    colors = colors if colors.shape[-1] == 3 else tf.image.grayscale_to_rgb(colors)
    return colors if channels == 3 else tf.concat([colors, alpha], axis=-1)
