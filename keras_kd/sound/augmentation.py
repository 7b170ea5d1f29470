"""Random changes of clips: shifts, pitch, level and noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_kd._checks import check_integer, check_number, problem

if TYPE_CHECKING:
    import tensorflow as tf

_MOST_NAMED = 5


class ClipAugmentation:
    """A random change of a clip, which is the same whenever its seed is.

    It is a function of one clip and a seed, as `teachers.StoredTeacher.create(augment=)` takes it,
    so that teacher and student get the same changed clip; `batches` makes data sets for `fit`. It
    is made of TensorFlow's stateless operations.

    Args:
        sample_rate: samples in a second, in Hz.
        shift: how far the clip moves at most, forth or back, in seconds. Zeros take the place of
            what moves in.
        speed: by which share the clip is faster or slower at most: 0.1 for 0.9 to 1.1 times its
            speed. Pitch and resonances change with it, as from one speaker to another.
        gain: by how much the level changes at most, up or down, in decibels.
        noise: the least and the greatest ratio of the mean power of the clip to that of the noise,
            in decibels. None: no noise.
        background: recordings of noise, float, shape (recordings, samples) with as many samples
            as the clips have, one of which is added. None: white noise.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if one is out of its range.

    Example:
        ```python
        augment = sound.ClipAugmentation(16000, shift=0.1, noise=(5, 30))
        stored = StoredTeacher.create(teacher, (x, y), "x.store", augment=augment, versions=4)
        ```
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        shift: float = 0.1,
        speed: float = 0.1,
        gain: float = 6.0,
        noise: tuple[float, float] | None = (5.0, 30.0),
        background: Any = None,
    ) -> None:
        rate = check_integer("sample_rate", sample_rate, at_least=1, fix="pass 16000, for example")
        seconds = check_number("shift", shift, at_least=0, fix="pass 0.1 for 100 ms")
        self._shift = round(seconds * rate)
        fix = "pass 0.1 for 10 %, or 0"
        self._speed = check_number("speed", speed, at_least=0, at_most=0.5, fix=fix)
        self._gain = check_number("gain", gain, at_least=0, at_most=60, fix="pass 6.0")
        self._noise = None if noise is None else _checked_range(noise)
        self._background = None if background is None else _checked_background(background)

    def __call__(self, clip: Any, seed: Any) -> tf.Tensor:
        """The clip changed, float32 of shape (samples,), from -1 to 1.

        Args:
            clip: float, shape (samples,).
            seed: int32, shape (2,).
        """
        import tensorflow as tf

        clip = tf.cast(clip, "float32")
        power = tf.reduce_mean(tf.square(clip))
        drawn = tf.random.stateless_uniform((5,), seed)
        if self._shift:
            offset = tf.cast(drawn[0] * (2 * self._shift + 1), tf.int32)
            padded = tf.pad(clip, [[self._shift, self._shift]])
            clip = tf.slice(padded, [offset], tf.shape(clip))
        if self._speed:
            clip = _faster(clip, 1 + self._speed * (2 * drawn[1] - 1))
        if self._noise is not None:
            low, high = self._noise
            ratio = low + (high - low) * drawn[2]
            noise = self._noise_like(clip, drawn[3], tf.bitwise.invert(seed))
            clip += tf.sqrt(power) * tf.pow(10.0, -ratio / 20) * noise
        change = self._gain * (2 * drawn[4] - 1)
        return tf.clip_by_value(clip * tf.pow(10.0, change / 20), -1.0, 1.0)

    def _noise_like(self, clip: tf.Tensor, drawn: tf.Tensor, seed: Any) -> tf.Tensor:
        """Noise of a mean power of 1, of the shape of a clip."""
        import tensorflow as tf

        if self._background is None:
            return tf.random.stateless_normal(tf.shape(clip), seed)
        which = tf.cast(drawn * len(self._background), tf.int32)
        return tf.ensure_shape(tf.gather(self._background, which), clip.shape)

    def batches(
        self,
        x: Any,
        y: Any,
        batch_size: int = 32,
        *,
        seed: int = 0,
        front_end: Callable[[Any], Any] | None = None,
    ) -> tf.data.Dataset:
        """Batches of changed clips, shuffled, with other changes in every epoch.

        The order and the changes of each epoch follow from the seed.

        Args:
            x: clips, shape (clips, samples).
            y: labels, shape (clips, ...).
            batch_size: clips in a batch.
            seed: of order and changes.
            front_end: what makes features of a batch of clips, such as `LogMel`. None: clips.
        """
        import tensorflow as tf

        batch_size = check_integer("batch_size", batch_size, at_least=1, fix="pass 32")
        seed = check_integer("seed", seed, at_least=0, fix="pass 0, for example")
        pairs = tf.data.Dataset.from_tensor_slices((np.asarray(x, "float32"), y))
        pairs = pairs.shuffle(len(x), seed=seed)
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
        changed = tf.data.Dataset.zip((pairs, numbers)).map(
            lambda pair, number: (self(pair[0], tf.cast(number, tf.int32)), pair[1])
        )
        batched = changed.batch(batch_size)
        if front_end is not None:
            batched = batched.map(lambda clips, labels: (front_end(clips), labels))
        return batched.prefetch(tf.data.AUTOTUNE)


def _faster(clip: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """The clip at another speed around its middle, by linear interpolation; zeros around it."""
    import tensorflow as tf

    samples = tf.shape(clip)[0]
    middle = tf.cast(samples - 1, tf.float32) / 2
    places = (tf.range(tf.cast(samples, tf.float32)) - middle) * factor + middle
    before = tf.floor(places)
    share = places - before
    # A zero on either side, for places outside.
    padded = tf.pad(clip, [[1, 1]])
    first = tf.clip_by_value(tf.cast(before, tf.int32) + 1, 0, samples + 1)
    second = tf.clip_by_value(tf.cast(before, tf.int32) + 2, 0, samples + 1)
    return (1 - share) * tf.gather(padded, first) + share * tf.gather(padded, second)


def _checked_range(noise: Any) -> tuple[float, float]:
    fix = "pass (5, 30), in decibels, or None for no noise"
    if not isinstance(noise, list | tuple) or len(noise) != 2:
        raise problem(f"noise={noise!r:.100}", "the least and the greatest ratio", fix)
    low, high = (
        check_number("noise", ratio, at_least=-60, at_most=120, fix=fix) for ratio in noise
    )
    if low > high:
        raise problem(f"noise={noise!r}", "the least ratio first", fix)
    return low, high


def _checked_background(background: Any) -> np.ndarray:
    """Each recording divided by the root of its mean power."""
    recordings = np.asarray(background, "float32")
    if recordings.ndim != 2 or not len(recordings) or not np.isfinite(recordings).all():
        raise problem(
            f"background of shape {recordings.shape}",
            "finite samples of shape (recordings, samples)",
            "pass load_clips(...).x of a directory of noises",
        )
    levels = np.sqrt(np.mean(np.square(recordings), axis=1, keepdims=True))
    if not (levels > 0).all():
        silent = np.flatnonzero(levels[:, 0] <= 0).tolist()
        raise problem(
            f"background with silence in the recordings {silent[:_MOST_NAMED]}",
            "recordings of noise",
            "leave these out",
        )
    return recordings / levels
