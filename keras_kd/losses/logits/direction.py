"""Direction matching: which way the outputs of each example point, beside the others' ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.base import DistillationLoss, OutputKey, Pair
from keras_kd.losses.geometry import directions
from keras_kd.losses.logits.base import logits_behind
from keras_kd.losses.reduction import example_weights, of_counted

# Cosines computed in float32 that are nearer than this may be equal.
_ROUNDING = 1e-6


def direction_matching(
    teacher_logits: Any, student_logits: Any, weights: Any, *, tikhonov: float = 0.1
) -> Any:
    """Mean Mahalanobis length of the differences between both models' cosines, a scalar.

    Args:
        teacher_logits: tensor of shape `(batch, units)`; no gradient flows into it.
        student_logits: tensor of the same shape.
        weights: what each example counts, shape `(batch,)`; their sum is the (effective) number of
            examples. Where one is 0 the logits are zeros.
        tikhonov: added to the variances, above 0.
    """
    teacher = directions(ops.stop_gradient(teacher_logits))
    student = directions(student_logits)
    # s s' - t t' as products of s - t and s + t, which keep their digits where s is near t.
    half = 0.5 * ops.matmul(student - teacher, ops.transpose(student + teacher))
    # So weighted, an example of weight 2 is two of weight 1, as a row and as a column.
    root = ops.sqrt(weights)
    differences = (half + ops.transpose(half)) * root
    present = ops.sum(weights)
    mean = ops.divide_no_nan(ops.matmul(weights, differences), present)
    deviations = (differences - mean) * ops.expand_dims(root, axis=-1)
    # A single example has no deviations: dividing by 1 leaves 0.
    covariance = ops.matmul(ops.transpose(deviations), deviations) / ops.maximum(present - 1.0, 1.0)
    # Not by ops.diag, whose shape is unknown to XLA in TensorFlow 2.20.
    covariance += tikhonov * ops.eye(ops.shape(weights)[0], dtype=weights.dtype)
    # The slope of a length is infinite at 0, where the student equals the teacher, and of no
    # meaning where the difference is rounding.
    differ = ops.sum(ops.square(differences), axis=-1) > present * _ROUNDING**2
    squares = squared_mahalanobis_lengths(differences, covariance)
    lengths = ops.where(differ, ops.sqrt(ops.where(differ, squares, 1.0)), 0.0)
    return ops.divide_no_nan(ops.sum(weights * lengths), present)


def squared_mahalanobis_lengths(vectors: Any, covariance: Any) -> Any:
    """v C^-1 v^T for each row v of `vectors`, `(vectors, size)` to `(vectors,)`.

    Args:
        vectors: tensor of shape `(vectors, size)`.
        covariance: C, positive definite, of shape `(size, size)`.
    """
    factor = ops.cholesky(ops.stop_gradient(covariance))
    solved = ops.solve_triangular(factor, ops.transpose(vectors), lower=True)
    solved = ops.solve_triangular(ops.transpose(factor), solved, lower=False)
    solved = ops.stop_gradient(ops.transpose(solved))
    # At x = v C^-1, 2 x v - x C x is v C^-1 v and its slope in x is 0: the same value and gradient
    # without the gradient of the factorization, which loses digits in large batches.
    return ops.sum(solved * (2.0 * vectors - ops.matmul(solved, covariance)), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class DirectionMatching(DistillationLoss):
    """How far the student's cosines between the examples of a batch are from the teacher's.

    Transfers which examples have outputs in the same direction, independent of their length; the
    differences are measured against their own covariance, so that no example dominates. Needs no
    temperature.

        loss = mean over examples i of sqrt(D_i C^-1 D_i^T),  D = S S^T - T T^T,
            C = covariance of the columns of D + tikhonov * I,

    the rows of S and T being the student's and the teacher's logits of each example, divided by
    their length; the covariance is divided by batch - 1. A property of the batch: an example of
    sample weight 0, or one that is masked, is not in it; the others count in proportion to their
    weights, and the loss is multiplied by the mean weight. Time and memory grow with the cube and
    the square of the batch. Outputs of shape `(batch, ..., classes)` are one vector per example, in
    which masked positions are 0. Models that end in a softmax or sigmoid are recognised and
    compared by their logits.

    Args:
        tikhonov: added to the variances so that C can be inverted, above 0.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if `tikhonov` is not a number.
        ValueError: if `tikhonov` is not above 0.

    Example:
        >>> import numpy as np
        >>> loss = DirectionMatching(tikhonov=0.1)
        >>> teacher = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> student = np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        2.3355

    Reference:
        Jeong et al.: Streamlined Knowledge Distillation, CVPR 2026, which adds this loss to
        `SoftTargets`. The authors' code divides the cosines by the number of classes: what is
        `tikhonov` there is `tikhonov * classes**2` here.
    """

    reads_whole_batch = True

    def __init__(
        self,
        tikhonov: float = 0.1,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(outputs=outputs)
        self.tikhonov = check_number(
            "tikhonov", tikhonov, above=0, fix="use a small number such as 0.1"
        )

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """`direction_matching` of the logits behind one pair of outputs, times the mean weight."""
        both = [found.logits for found in logits_behind(pair.teacher, pair.student)]
        weights, factor = example_weights(both[1], pair.sample_weight, pair.mask)
        counted = (of_counted(logits, weights, pair.sample_weight, pair.mask) for logits in both)
        teacher, student = (ops.reshape(logits, (ops.shape(logits)[0], -1)) for logits in counted)
        return factor * direction_matching(teacher, student, weights, tikhonov=self.tikhonov)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "tikhonov": self.tikhonov}
