"""One reduction of values per example or batch to a loss, with weights and masks."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd import _replicas
from keras_kd._checks import problem, shapes_fit


def weighted_mean(values: Any, sample_weight: Any = None, mask: Any = None) -> Any:
    """Sum of the weighted values over the number of values that the mask leaves.

    With `tf.distribute` the mean is over the examples of all replicas, and the result a replica's
    share of it, see `_replicas.mean`.

    Args:
        values: tensor of shape `(batch, ...)`, or a scalar, which no weight can split.
        sample_weight: `None` or a tensor of shape `(batch,)`, `(batch, 1)` or like `values`.
        mask: `None` or a tensor like `sample_weight`; 0 or `False` leaves a value out.

    Raises:
        ValueError: if a scalar represents the examples of one replica of several.
    """
    if len(values.shape) == 0:
        if _replicas.number() > 1:
            raise problem(
                f"a scalar for the part of a batch that one of {_replicas.number()} replicas has",
                "one value per example, whose mean over the whole batch is known",
                "return a tensor of shape (batch,) from per_example, or set "
                "reads_whole_batch = True in the class of the loss",
            )
        return values
    return _replicas.mean(*sum_and_count(values, sample_weight, mask))


def sum_and_count(values: Any, sample_weight: Any, mask: Any) -> tuple[Any, Any]:
    """The sum of the weighted values, and the number of values that the mask leaves: two scalars.

    Arguments are those of `weighted_mean`.
    """
    count = ops.cast(ops.size(values), values.dtype)
    if mask is not None:
        mask = ops.cast(ops.broadcast_to(align(mask, values), ops.shape(values)), values.dtype)
        # A value that is left out may be NaN, and NaN times 0 is NaN: choose, do not multiply.
        values = ops.where(ops.cast(mask, "bool"), values, ops.zeros_like(values))
        count = ops.sum(mask)
    if sample_weight is not None:
        weight = ops.cast(align(sample_weight, values), values.dtype)
        values = ops.where(weight == 0, ops.zeros_like(values), weight * values)
    return ops.sum(values), count


def example_weights(examples: Any, sample_weight: Any, mask: Any) -> tuple[Any, Any]:
    """What each example counts in a loss that is a property of the batch.

    An example of weight 0, or one that is masked, is not in the batch. The others count in
    proportion to their weights, and the loss of the batch is multiplied by the mean weight, so that
    weights that are all alike scale it as they scale a mean of values.

    Args:
        examples: a tensor of shape `(batch, ...)`, for its size and dtype.
        sample_weight: `None` or a tensor of shape `(batch, ...)`, averaged over what is not batch.
        mask: `None` or a tensor of shape `(batch, ...)`; an example counts unless all of it is
            masked.

    Returns:
        The examples' weights, of shape `(batch,)`, 0 for those that are left out; and the factor
        for the loss, a scalar. The sum of the weights is the number of examples where all that are
        not left out weigh alike, and elsewhere the effective number sum(w)^2 / sum(w^2) (Kish,
        Survey Sampling, 1965), so that a weight of 0 is the limit of small ones.
    """
    unmasked = ops.ones((ops.shape(examples)[0],), dtype=examples.dtype)
    if mask is not None:
        unmasked = ops.cast(mask_of_examples(mask), examples.dtype)
    weights = unmasked
    if sample_weight is not None:
        weights = unmasked * ops.cast(weight_of_examples(sample_weight), examples.dtype)
    total = ops.sum(weights)
    return (
        weights * ops.divide_no_nan(total, ops.sum(ops.square(weights))),
        ops.divide_no_nan(total, ops.sum(unmasked)),
    )


def of_counted(features: Any, weights: Any, sample_weight: Any, mask: Any) -> Any:
    """`without_ignored`, where anything can be ignored.

    Args:
        features: tensor of shape `(batch, ..., channels)`.
        weights: what `example_weights` makes of the others, shape `(batch,)`.
        sample_weight: as the loss got it.
        mask: as the loss got it.
    """
    if sample_weight is None and mask is None:
        return features
    return without_ignored(features, weights, mask)


def without_ignored(features: Any, weights: Any = None, mask: Any = None) -> Any:
    """Zeros in place of examples of weight 0 and of masked positions.

    What they hold, NaN perhaps, then reaches neither the others nor the gradient. A mask of other
    positions than the features have does not apply to them.

    Args:
        features: tensor of shape `(batch, ..., channels)`.
        weights: `None` or what each example counts, shape `(batch,)`.
        mask: `None` or a tensor of shape `(batch, ...)`.
    """
    if weights is not None:
        features = _kept(features, weights > 0)
    if mask is not None and has_positions_of(features, mask):
        features = _kept(features, ops.cast(mask, "bool"))
    return features


def has_positions_of(features: Any, mask: Any) -> bool:
    """Whether a mask `(batch, ...)` has one value per example or position of some features."""
    return shapes_fit(mask.shape[1:], features.shape[1:-1][: len(mask.shape) - 1])


def weight_of_examples(sample_weight: Any) -> Any:
    """The mean weight of an example: `(batch, ...)` to `(batch,)`."""
    weight = ops.cast(ops.convert_to_tensor(sample_weight), keras.config.floatx())
    return ops.mean(_flat(weight), axis=-1)


def mask_of_examples(mask: Any) -> Any:
    """An example counts unless all of its positions are masked: `(batch, ...)` to `(batch,)`."""
    return ops.any(_flat(ops.cast(ops.convert_to_tensor(mask), "bool")), axis=-1)


def _kept(features: Any, kept: Any) -> Any:
    return ops.where(align(kept, features), features, ops.zeros_like(features))


def align(weight: Any, values: Any) -> Any:
    """Give a sample weight or mask the rank of `values`: batch first, ones behind."""
    weight = ops.convert_to_tensor(weight)
    while len(weight.shape) > len(values.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < len(values.shape):
        weight = ops.expand_dims(weight, axis=-1)
    return weight


def _flat(tensor: Any) -> Any:
    return ops.reshape(tensor, (ops.shape(tensor)[0], -1))
