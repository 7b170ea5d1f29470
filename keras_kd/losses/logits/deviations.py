"""How values deviate from their mean, where float32 would drown the deviations in rounding."""

from __future__ import annotations

from typing import Any

from keras import ops

# Deviations below the rounding of float32 do not depend on the values.
_ROUNDING = 1e-7


def deviations_from_mean(values: Any, weights: Any, *, axis: int = -1) -> tuple[Any, Any, Any]:
    """Deviations from the weighted mean along an axis, and how large they are.

    Args:
        values: tensor of any shape.
        weights: what each value counts, broadcastable to `values` with the size of `axis`.
        axis: the axis of the mean.

    Returns:
        The deviations, of the shape of `values`; the weighted sum of their squares, with size 1
        along `axis`; and, of the same shape, whether the values are all the same but for rounding.
    """

    def total(summands: Any) -> Any:
        return ops.sum(weights * summands, axis=axis, keepdims=True)

    number = ops.sum(weights, axis=axis, keepdims=True)
    deviations = values
    # The second time takes away what the first one's rounding left.
    for _ in range(2):
        deviations = deviations - ops.divide_no_nan(total(deviations), number)
    squares = total(ops.square(deviations))
    flat = squares <= _ROUNDING**2 * total(ops.square(values))
    return deviations, squares, flat
