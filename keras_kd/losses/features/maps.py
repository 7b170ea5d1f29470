"""Feature maps as wholes: their sizes, their positions, and losses with one value per map.

A map has the shape `(batch, ..., channels)`, with one or more axes of positions in the middle:
height and width of an image, the steps of a sequence, a volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _backends
from keras_kd._checks import problem
from keras_kd.losses.base import OutputKey, Pair
from keras_kd.losses.features.base import FeatureLoss
from keras_kd.losses.reduction import (
    mask_of_examples,
    weight_of_examples,
    weighted_mean,
    without_ignored,
)

# What a norm is at least before it divides, as in the published implementations: a map of zeros
# stays one.
_LEAST_NORM = 1e-12


class MapLoss(FeatureLoss):
    """A loss that looks at a map as a whole: `per_example` returns one value per example.

    Masked positions are zeros in both maps, where the mask has the map's positions. The weights of
    an example's positions are averaged, and an example counts unless all of it is masked.

    Arguments are those of `FeatureLoss`.
    """

    reads_maps = True

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The loss of one pair of maps as a scalar: the weighted mean of `per_example`."""
        weight, mask = pair.sample_weight, pair.mask
        if weight is None and mask is None:
            return weighted_mean(self.per_example(pair.teacher, pair.student, **context))
        examples = None if mask is None else mask_of_examples(mask)
        weight = None if weight is None else weight_of_examples(weight)

        def kept(features: Any) -> Any:
            return without_ignored(without_ignored(features, weight, mask), mask=examples)

        values = self.per_example(
            keras.tree.map_structure(kept, pair.teacher),
            keras.tree.map_structure(kept, pair.student),
            **context,
        )
        return weighted_mean(values, weight, examples)


class PooledMapLoss(MapLoss):
    """A `MapLoss` that takes any number of channels and any size: it pools to the smaller map.

    Arguments are those of `FeatureLoss`.
    """

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """The student's own shape."""
        return student_shape

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes: maps with equally many axes.

        Raises:
            ValueError: if they are not.
        """
        check_maps(teacher_shape, student_shape)
        super().check_shapes(key, teacher_shape, student_shape)


def check_map(shape: Sequence[int | None]) -> None:
    """Check that a shape is that of a map.

    Raises:
        ValueError: if it has no positions.
    """
    if len(shape) < 3:
        raise problem(
            f"features of shape {tuple(shape)}, vectors without positions",
            "feature maps of shape (batch, ..., channels)",
            "name a layer before the pooling or flattening, or compare vectors with "
            "keras_kd.losses.Hint",
        )


def check_maps(first: Sequence[int | None], second: Sequence[int | None]) -> None:
    """Check that two shapes are those of maps with equally many axes.

    Raises:
        ValueError: if they are not.
    """
    check_map(first)
    check_map(second)
    if len(first) != len(second):
        raise problem(
            f"features of shapes {tuple(first)} and {tuple(second)}",
            "as many axes of positions in both",
            "name layers that both give images, or both give sequences",
        )


def same_size(first: Any, second: Any) -> tuple[Any, Any]:
    """Pool two maps, along each axis of positions, to the smaller of the two.

    Raises:
        ValueError: if they are no maps, their numbers of axes differ, or a size is not known.
    """
    check_maps(first.shape, second.shape)
    size = [min(pair) for pair in zip(known_size(first), known_size(second), strict=True)]
    return pooled(first, size), pooled(second, size)


def pooled(features: Any, size: Sequence[int]) -> Any:
    """Average the positions of a map over windows, as many as `size` along each axis.

    Of n positions the window i of m begins at floor(i * n / m) and ends before
    ceil((i + 1) * n / m): where m does not divide n, neighbours overlap.

    Raises:
        ValueError: if a size of the map is not known.
    """
    for axis, (given, wanted) in enumerate(zip(known_size(features), size, strict=True), 1):
        if given != wanted:
            windows = ops.convert_to_tensor(averaging_windows(given, wanted), dtype=features.dtype)
            averages = ops.tensordot(features, windows, axes=[[axis], [0]])
            features = ops.moveaxis(averages, -1, axis)
    return features


def known_size(features: Any) -> tuple[int, ...]:
    """How many positions a map has along each axis.

    Raises:
        ValueError: if that is not known.
    """
    size = tuple(features.shape[1:-1])
    if None in size:
        raise problem(
            f"features of shape {tuple(features.shape)}",
            "feature maps whose numbers of positions are known",
            "give the models' inputs a fixed size, as in keras.Input((224, 224, 3))",
        )
    return size


def flat(features: Any) -> Any:
    """Put all positions on one axis: `(batch, ..., channels)` to `(batch, positions, channels)`."""
    shape = ops.shape(features)
    return ops.reshape(features, (-1, math.prod(shape[1:-1]), shape[-1]))


def number_of_positions(features: Any) -> Any:
    """How many positions a map has; 1 for vectors."""
    return ops.cast(math.prod(ops.shape(features)[1:-1]), features.dtype)


def unit(vectors: Any, axis: int) -> Any:
    """Divide by the Euclidean norm along an axis; zeros stay zeros, without gradient."""

    # Of the derivative of each operation, most is known already or cancels.
    @_backends.custom_gradient
    def divided(vectors: Any) -> Any:
        # What has been divided by its largest value has a norm of at least 1, which neither
        # overflows nor underflows; it is below where the vector is shorter than the least norm.
        scale = ops.max(ops.abs(vectors), axis=axis, keepdims=True)
        scale = ops.maximum(scale, _LEAST_NORM)
        scaled = vectors / scale
        squared = ops.sum(ops.square(scaled), axis=axis, keepdims=True)
        over_norm = ops.rsqrt(ops.maximum(squared, 1.0))
        units = scaled * over_norm

        def gradient(upstream: Any) -> Any:
            along = ops.sum(upstream * units, axis=axis, keepdims=True)
            slope = ops.where(squared < 0.5, 0.0, over_norm / scale)
            return slope * (upstream - along * units)

        return units, gradient

    return divided(vectors)


def averaging_windows(given: int, wanted: int) -> np.ndarray:
    """The matrix, `(given, wanted)`, that averages `given` positions over `wanted` windows."""
    windows = np.zeros((given, wanted))
    for index in range(wanted):
        window = slice(index * given // wanted, -((index + 1) * given // -wanted))
        windows[window, index] = 1.0 / (window.stop - window.start)
    return windows
