"""Similarities: which examples activate a model alike."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.geometry import directions, flatten, rescale
from keras_kd.losses.relations.base import BatchLoss


def similarities(features: Any, weights: Any) -> Any:
    """Products of each example with the others, every row of length 1.

    Args:
        features: tensor of shape `(batch, ...)`.
        weights: what each example counts, shape `(batch,)`.

    Returns:
        A tensor of shape `(batch, batch)`; column j holds the square root of weight j as a factor,
        so that squares of the entries count in proportion to the weight.
    """
    vectors = rescale(flatten(features))
    products = ops.matmul(vectors, ops.transpose(vectors))
    return directions(products * ops.sqrt(weights))


def similarity_preserving(teacher_features: Any, student_features: Any, weights: Any) -> Any:
    """Mean over all pairs of the squared difference of `similarities`: a scalar.

    Arguments are those of `similarities`; sizes of the two models' features may differ.
    """
    gap = similarities(student_features, weights) - similarities(teacher_features, weights)
    total = ops.sum(weights * ops.sum(ops.square(gap), axis=-1))
    return ops.divide_no_nan(total, ops.square(ops.sum(weights)))


@keras.saving.register_keras_serializable(package="keras_kd")
class SimilarityPreserving(BatchLoss):
    """Similarity preserving (SP): squared difference of the similarities in a batch.

    Pairs of examples with similar activations of the teacher get similar ones of the student.
    Needs no adapter, for any sizes of the features; the paper's weight is 3000.

        loss = 1 / b^2 * sum_ij (S_ij - T_ij)^2,  S_ij = s_i . s_j / sqrt(sum_k (s_i . s_k)^2),
                                                  T_ij likewise of the teacher

    A property of the batch of b examples; s_i is all features of example i. Features have shape
    `(batch, ...)`, which may differ between the models but for the batch. Arguments, errors and
    the meaning of sample weights are those of `FeatureLoss` and `BatchLoss`.

    Example:
        >>> import numpy as np
        >>> loss = SimilarityPreserving("block3", "block2")
        >>> teacher, student = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0], [1.0]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        0.2929

    Reference:
        Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019.
    """

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """Any shape: examples are compared within each model."""
        return student_shape

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """`similarity_preserving` of the features."""
        return similarity_preserving(teacher, student, weights)
