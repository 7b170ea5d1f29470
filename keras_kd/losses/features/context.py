"""Hierarchical context: feature maps compared at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_integer, problem
from keras_kd.losses.base import OutputKey
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.features.maps import MapLoss, check_map, known_size, pooled


def hierarchical_context(
    teacher_features: Any, student_features: Any, levels: Sequence[int] = (4, 2, 1)
) -> Any:
    """Weighted mean of the mean squared differences at several sizes: `(batch,)`.

    Raises:
        ValueError: if the features are vectors without positions, or their size is not known.
    """
    check_map(student_features.shape)
    # Pooling is linear: the difference of the averages is the average of the differences.
    difference = student_features - teacher_features
    size = known_size(difference)
    total = _mean_square(difference)
    weight, weights = 1.0, 1.0
    for level in levels:
        if level < size[0]:
            weight /= 2.0
            weights += weight
            total += weight * _mean_square(pooled(difference, [level] * len(size)))
    return total / weights


def _mean_square(difference: Any) -> Any:
    return ops.mean(ops.square(difference), axis=tuple(range(1, len(difference.shape))))


@keras.saving.register_keras_serializable(package="keras_kd")
class HierarchicalContext(MapLoss):
    """Hierarchical context (HCL of ReviewKD): mean squared difference of maps at several sizes.

    Transfers the values of the features and the context around them. Made for review, where
    features of several of the student's stages are fused before they are compared; works on any
    pair of maps. Usual weights are from 1 to 8.

        difference_l = mean of (pool(student, l) - pool(teacher, l))^2, pooled to l x l positions
        loss = (difference + sum_i difference_{l_i} / 2^i) / (1 + sum_i 1 / 2^i),  i = 1, 2, ...

    A level is skipped, and gets no weight, when it is not smaller than the map's first axis of
    positions.

    Args:
        teacher_layer_name: see `FeatureLoss`. The features have the shape `(batch, ..., channels)`
            with at least one axis of positions, of a size that is known.
        student_layer_name: see `FeatureLoss`.
        levels: the sizes to which the maps are pooled, each from 1; the first weighs 1/2, the
            next 1/4, and so on.
        adapter: see `FeatureLoss`; it brings the student's features to the teacher's shape.

    Raises:
        TypeError: if the levels are not integers.
        ValueError: if a level is below 1; later, if features have no positions.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.zeros((1, 2, 2, 1)), np.ones((1, 2, 2, 1))
        >>> float(HierarchicalContext().compute_loss(teacher, student))
        1.0

    Reference:
        Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review, CVPR 2021. The fusion of
        the student's stages is left to the model.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        levels: Sequence[int] = (4, 2, 1),
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.levels = _check_levels(levels)

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`hierarchical_context` of the maps."""
        return hierarchical_context(teacher_output, student_output, self.levels)

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes: equal ones of maps.

        Raises:
            ValueError: if they are not.
        """
        check_map(teacher_shape)
        super().check_shapes(key, teacher_shape, student_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "levels": self.levels}


def _check_levels(levels: Any) -> list[int]:
    fix = "pass for example levels=[4, 2, 1]"
    if not isinstance(levels, list | tuple):
        raise problem(f"levels={levels!r}", "a list of integers", fix, kind=TypeError)
    return [check_integer("a level", level, at_least=1, fix=fix) for level in levels]
