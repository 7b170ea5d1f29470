"""Activation boundaries: which neurons are on."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.features.base import FeatureLoss, LayerNames
from keras_kd.losses.features.maps import number_of_positions

# What the authors multiply the sum by, so that the usual weight is 1.
_SCALE = 3.0 / 1000.0


def activation_boundary(teacher_features: Any, student_features: Any, margin: float = 1.0) -> Any:
    """Squared distance to the side of the boundary where the teacher is: `(...)`.

    The sum over the channels, times the number of positions, so that the mean over the positions
    is the sum over the map.
    """
    is_on = teacher_features > 0
    too_low = ops.relu(margin - student_features)
    too_high = ops.relu(margin + student_features)
    distance = ops.where(is_on, too_low, too_high)
    squares = ops.sum(ops.square(distance), axis=-1)
    return _SCALE * number_of_positions(student_features) * squares


@keras.saving.register_keras_serializable(package="keras_kd")
class ActivationBoundary(FeatureLoss):
    """Activation boundaries (AB): squared hinge loss on which neurons are on.

    Transfers where the teacher's neurons switch, not how much they answer. Compare features before
    the ReLU. Made to initialize a student before it is trained on the outputs; its usual weight is
    1.

        distance = max(0, margin - student) where teacher > 0, else max(0, margin + student)
        loss = 3 / 1000 * sum over positions and channels of distance^2

    Features of shape `(batch, ..., channels)` give one value per example and position, times the
    number of positions. The value is not 0 where student equals teacher unless all its values
    are further than the margin from 0.

    Args:
        teacher_layer_name: see `FeatureLoss`.
        student_layer_name: see `FeatureLoss`.
        margin: from 0; the distance from 0 that the student's values must have.
        adapter: see `FeatureLoss`; it brings the student's features to the teacher's shape.

    Raises:
        TypeError: if the margin is not a number.
        ValueError: if the margin is below 0.

    Example:
        >>> import numpy as np
        >>> loss = ActivationBoundary(margin=1.0)
        >>> value = loss.compute_loss(np.array([[5.0, -5.0]]), np.array([[-1.0, -1.0]]))
        >>> round(float(value), 6)
        0.012

    Reference:
        Heo, Lee, Yun, Choi: Knowledge Transfer via Distillation of Activation Boundaries Formed by
        Hidden Neurons, AAAI 2019. One layer has the weight 1, where the authors halve it for each
        layer further from the output.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        margin: float = 1.0,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.margin = check_number("margin", margin, at_least=0, fix="use a margin such as 1.0")

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`activation_boundary` of the features."""
        return activation_boundary(teacher_output, student_output, self.margin)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "margin": self.margin}
