"""Directions and distances of examples, finite also where they have none."""

from __future__ import annotations

from typing import Any

from keras import ops


def flatten(features: Any) -> Any:
    """One vector per example: `(batch, ...)` to `(batch, size)`."""
    return ops.reshape(features, (ops.shape(features)[0], -1))


def rescale(vectors: Any) -> Any:
    """Divide by the largest entry, a constant to the gradient.

    For formulas that no scale changes: their value and gradient stay the same, and squares of
    very large or small features stay within float32.
    """
    return ops.divide_no_nan(vectors, ops.stop_gradient(ops.max(ops.abs(vectors))))


def directions(vectors: Any) -> Any:
    """Vectors along the last axis divided by their length; zeros remain zeros, without gradient."""
    largest = ops.stop_gradient(ops.max(ops.abs(vectors), axis=-1, keepdims=True))
    # Each vector as in `rescale`, so that a squared length is at least 1, or 0 for zeros.
    vectors = ops.divide_no_nan(vectors, largest)
    squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors / _root(squared, of_zero=1.0)


def lengths(vectors: Any) -> Any:
    """Lengths along the last axis; the gradient of a length of 0 is 0."""
    return _root(ops.sum(ops.square(vectors), axis=-1), of_zero=0.0)


def differences(vectors: Any) -> Any:
    """Each vector minus each other: `(batch, size)` to `(batch, batch, size)`."""
    return vectors[:, None] - vectors[None]


def pair_weights(weights: Any) -> Any:
    """What each pair of examples counts: the product of both, `(batch, batch)`."""
    return weights[:, None] * weights[None]


def _root(squared: Any, of_zero: float) -> Any:
    # The derivative of the root is infinite at 0, and infinity times 0 is NaN also in a branch that
    # is not chosen: let the root never see the 0.
    is_zero = squared == 0
    root = ops.sqrt(ops.where(is_zero, ops.ones_like(squared), squared))
    return ops.where(is_zero, of_zero * ops.ones_like(squared), root)
