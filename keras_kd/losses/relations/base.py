"""Losses on relations between the examples of a batch, or on the batch as a whole."""

from __future__ import annotations

from typing import Any

from keras_kd.losses.base import Pair
from keras_kd.losses.features.base import FeatureLoss
from keras_kd.losses.reduction import example_weights, of_counted


class BatchLoss(FeatureLoss):
    """A loss that is a property of the batch: a subclass states it in `of_batch`.

    An example of sample weight 0, or one that is masked, is not in the batch. The others count in
    proportion to their weights, pairs in proportion to the product of both, and the result is
    multiplied by the mean weight, so that weights that are all alike scale it as in any other loss.
    Masked positions of an example that is not masked as a whole are zeros in the features of both.

    With `tf.distribute` the batch is that of all replicas, unless the Distiller was built with
    `gather_batches=False`.

    Arguments are those of `FeatureLoss`.
    """

    reads_whole_batch = True

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """The formula on one pair of tensors.

        Args:
            teacher: tensor of shape `(batch, ...)`; no gradient flows into it.
            student: tensor of shape `(batch, ...)`.
            weights: what each example counts, shape `(batch,)`: 1 where all count alike, 0 for
                those that are not in the batch, whose features are zeros. Their sum is the
                (effective) number of examples.
            **context: as in `per_example`.

        Returns:
            A scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} states no formula in of_batch().")

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The loss of one pair of tensors as a scalar: `of_batch` times the mean weight."""
        weights, factor = example_weights(pair.student, pair.sample_weight, pair.mask)
        teacher, student = (
            of_counted(features, weights, pair.sample_weight, pair.mask)
            for features in (pair.teacher, pair.student)
        )
        return factor * self.of_batch(teacher, student, weights, **context)
