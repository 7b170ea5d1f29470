"""Probabilistic transfer: how likely each example is to pick each other one as its neighbour."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.geometry import directions, flatten
from keras_kd.losses.relations.base import BatchLoss

# Examples in opposite directions have probability 0, whose logarithm is infinite. As the authors'.
_EPSILON = 1e-7


def neighbour_probabilities(features: Any, weights: Any) -> Any:
    """Row i: the probability that example i picks j, in proportion to their cosine similarity.

    Args:
        features: tensor of shape `(batch, ...)`.
        weights: what each example counts, shape `(batch,)`.

    Returns:
        A tensor of shape `(batch, batch)` with rows of sum 1, 0 where example j does not count.
    """
    vectors = directions(flatten(features))
    cosines = ops.matmul(vectors, ops.transpose(vectors))
    # Rounding can bring the cosine of opposite vectors below -1, and no probability is negative.
    kernel = weights * ops.maximum(0.5 * (cosines + 1.0), 0.0)
    return ops.divide_no_nan(kernel, ops.sum(kernel, axis=-1, keepdims=True))


def probabilistic_transfer(teacher_features: Any, student_features: Any, weights: Any) -> Any:
    """KL divergence of `neighbour_probabilities`, averaged over all pairs: a scalar.

    Arguments are those of `neighbour_probabilities`; sizes of the two models' features may differ.
    """
    teacher = neighbour_probabilities(teacher_features, weights) + _EPSILON
    student = neighbour_probabilities(student_features, weights) + _EPSILON
    gap = ops.log(student) - ops.log(teacher)
    # The terms -p * gap nearly cancel in the sum. Adding q - p = p * expm1(gap), whose sum is 0,
    # makes each of them positive, and small where the gap is.
    rows = ops.sum(teacher * (ops.expm1(gap) - gap) + _EPSILON * gap, axis=-1)
    return ops.divide_no_nan(ops.sum(weights * rows), ops.square(ops.sum(weights)))


@keras.saving.register_keras_serializable(package="keras_kd")
class ProbabilisticTransfer(BatchLoss):
    """Probabilistic knowledge transfer (PKT): KL divergence of neighbour distributions.

    Transfers the geometry of the teacher's feature space: which examples are near each other. Needs
    no adapter, for any sizes of the features. The mean over pairs makes it small; its usual
    weight is 30000.

        loss = 1 / b^2 * sum_ij p_ij * log(p_ij / q_ij),  p_ij = k_ij / sum_k k_ik,
               k_ij = (1 + cos(t_i, t_j)) / 2,  q_ij likewise of the student

    A property of the batch of b examples; both probabilities in the logarithm have 1e-7 added.
    Features have shape `(batch, ...)`, which may differ between the models but for the batch.
    Arguments, errors and the meaning of sample weights are those of `FeatureLoss` and `BatchLoss`.

    Example:
        >>> import numpy as np
        >>> loss = ProbabilisticTransfer("embedding", "embedding")
        >>> teacher, student = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0], [1.0]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        0.0283

    Reference:
        Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV
        2018. As in the authors' code, the mean is over the pairs where the paper sums. A vector of
        zeros has cosine 0 with all others and gets no gradient.
    """

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """Any shape: examples are compared within each model."""
        return student_shape

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """`probabilistic_transfer` of the features."""
        return probabilistic_transfer(teacher, student, weights)
