"""Congruence: neighbours in the batch deviate from the teacher alike, or not at all."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.geometry import flatten
from keras_kd.losses.relations.base import BatchLoss


def correlation_congruence(teacher_features: Any, student_features: Any, weights: Any) -> Any:
    """Mean over neighbours of the products of their deviations: a scalar.

    Args:
        teacher_features: tensor of shape `(batch, ...)`.
        student_features: tensor of the same shape.
        weights: what each example counts, shape `(batch,)`; neighbours are the next two examples
            that count.
    """
    deviations = ops.abs(flatten(student_features - teacher_features))
    # Those that do not count go to the end, so that the others stand side by side.
    place = ops.cast(ops.arange(ops.shape(weights)[0]), weights.dtype)
    size = ops.cast(ops.size(weights), weights.dtype)
    order = ops.argsort(ops.where(weights > 0, place, place + size))
    deviations, weights = ops.take(deviations, order, axis=0), ops.take(weights, order)
    products = ops.sum(deviations[:-1] * deviations[1:], axis=-1)
    pairs = weights[:-1] * weights[1:]
    return ops.divide_no_nan(ops.sum(pairs * products), ops.sum(pairs))


@keras.saving.register_keras_serializable(package="keras_kd")
class CorrelationCongruence(BatchLoss):
    """Correlation congruence (CC, CCKD): products of the deviations of neighbours in the batch.

    Draws the student's features towards the teacher's, most strongly where two neighbours deviate
    in the same feature; an example may deviate where its neighbours do not. Its usual weight is
    0.02.

        loss = 1 / (b - 1) * sum_i sum_c |s_ic - t_ic| * |s_(i+1)c - t_(i+1)c|

    A property of the batch of b examples, which depends on the order of the batch: shuffle the
    training data. A batch of one example has no neighbours and gives 0. Features have shape
    `(batch, ...)`; an adapter brings the student's to the teacher's shape. Arguments, errors and
    the meaning of sample weights are those of `FeatureLoss` and `BatchLoss`; the neighbours of an
    example of weight 0 become neighbours of each other.

    Example:
        >>> import numpy as np
        >>> loss = CorrelationCongruence("embedding", "embedding")
        >>> teacher, student = np.zeros((3, 2)), np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0]])
        >>> float(loss.compute_loss(teacher, student))
        3.0

    Reference:
        Peng, Jin, Liu, Li, Wu, Liu, Zhou, Zhang: Correlation Congruence for Knowledge
        Distillation, ICCV 2019. The paper compares kernels of all pairs of examples; this is the
        formula of RepDistiller (Tian, Krishnan, Isola 2020), by which the method is usually
        measured, without the embedding that is learned there: an adapter takes its place.
    """

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """`correlation_congruence` of the features."""
        return correlation_congruence(teacher, student, weights)
