"""Relational knowledge: distances between two examples, angles between three."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.geometry import (
    differences,
    directions,
    flatten,
    lengths,
    pair_weights,
    rescale,
)
from keras_kd.losses.relations.base import BatchLoss


def distances(features: Any, weights: Any) -> Any:
    """Distances between examples divided by their mean: `(batch, ...)` to `(batch, batch)`.

    Args:
        features: tensor of shape `(batch, ...)`.
        weights: what each example counts, shape `(batch,)`; pairs count in the mean by the product.
    """
    values = lengths(differences(rescale(flatten(features))))
    # No example has a distance to itself: the mean is over pairs of two.
    pairs = pair_weights(weights) * (1.0 - ops.eye(ops.shape(weights)[0], dtype=weights.dtype))
    return ops.divide_no_nan(values, ops.divide_no_nan(ops.sum(pairs * values), ops.sum(pairs)))


def angles(features: Any) -> Any:
    """Entry (i, j, k): the cosine of the angle at example i between those to j and to k.

    Args:
        features: tensor of shape `(batch, ...)`.

    Returns:
        A tensor of shape `(batch, batch, batch)`; 0 where two of the examples are one or equal.
    """
    sides = directions(differences(rescale(flatten(features))))
    return ops.matmul(sides, ops.transpose(sides, (0, 2, 1)))


def relational_distance(teacher_features: Any, student_features: Any, weights: Any) -> Any:
    """Huber difference of `distances`, averaged over all pairs: a scalar."""
    gap = distances(student_features, weights) - distances(teacher_features, weights)
    total = ops.sum(pair_weights(weights) * _huber(gap))
    return ops.divide_no_nan(total, ops.sum(weights) ** 2)


def relational_angle(teacher_features: Any, student_features: Any, weights: Any) -> Any:
    """Huber difference of `angles`, averaged over all triples: a scalar."""
    values = _huber(angles(student_features) - angles(teacher_features))
    for _ in range(3):
        values = ops.matmul(values, weights)
    return ops.divide_no_nan(values, ops.sum(weights) ** 3)


@keras.saving.register_keras_serializable(package="keras_kd")
class Relational(BatchLoss):
    """Relational knowledge distillation (RKD): difference of distances and angles of examples.

    Transfers how the teacher lays examples out, up to position, turn and scale. Made for embeddings
    (metric learning, the layer before the logits); needs no adapter, for any sizes. Its parts
    have weights, so its own usual weight is 1.

        loss = distance_weight * mean_ij h(D^s_ij - D^t_ij)
             + angle_weight * mean_ijk h(A^s_ijk - A^t_ijk)
        D_ij = |x_i - x_j| / mean over i != j,  A_ijk = cos of the angle at x_i between x_j and x_k,
        h(x) = x^2 / 2 where |x| < 1, |x| - 1/2 elsewhere

    A property of the batch. Features have shape `(batch, ...)`, which may differ between the models
    but for the batch. The differences take batch^2 * size numbers of memory, and angles, one for
    each three examples, batch^3: for both choose small layers and batches up to some 200.

    Args:
        teacher_layer_name: the teacher's layer or layers, see `FeatureLoss`.
        student_layer_name: the student's layer or layers.
        distance_weight: weight of the distances, at least 0.
        angle_weight: weight of the angles, at least 0; at 0 they are not computed.
        adapter: see `FeatureLoss`; none is made unless it is given.

    Raises:
        TypeError: if a weight is not a number.
        ValueError: if a weight is below 0.

    Example:
        >>> import numpy as np
        >>> loss = Relational("embedding", "embedding", distance_weight=9.0, angle_weight=0.0)
        >>> teacher, student = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [1.0]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        1.125

    Reference:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, CVPR 2019. As in the authors' code,
        means include the pairs and triples with the same example twice.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.distance_weight = check_number(
            "distance_weight", distance_weight, at_least=0, fix="use a weight such as 25.0"
        )
        self.angle_weight = check_number(
            "angle_weight", angle_weight, at_least=0, fix="use a weight such as 50.0"
        )

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """Any shape: examples are compared within each model."""
        return student_shape

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """The weighted sum of `relational_distance` and `relational_angle` of the features."""
        value = self.distance_weight * relational_distance(teacher, student, weights)
        if self.angle_weight > 0:
            value += self.angle_weight * relational_angle(teacher, student, weights)
        return value

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "distance_weight": self.distance_weight,
            "angle_weight": self.angle_weight,
        }


def _huber(gap: Any) -> Any:
    size = ops.abs(gap)
    return ops.where(size < 1.0, 0.5 * ops.square(gap), size - 0.5)
