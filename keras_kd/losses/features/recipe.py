"""The simple recipe: the logarithm of the distance over the whole batch."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.relations.base import BatchLoss

# Added to the sum before the logarithm: where student and teacher are equal the value is -27.6
# instead of minus infinity, and the gradient stays finite.
_LEAST_DISTANCE = 1e-12


def log_distance(
    teacher_features: Any, student_features: Any, weights: Any, exponent: float = 1.0
) -> Any:
    """Logarithm of the summed |student - teacher|^exponent of all examples, a scalar.

    Args:
        teacher_features: tensor of shape `(batch, ...)`.
        student_features: tensor of the same shape.
        weights: what each example counts, of shape `(batch,)`.
        exponent: what the differences are raised to.
    """
    distances = ops.power(ops.abs(student_features - teacher_features), exponent)
    distances = ops.sum(distances, axis=tuple(range(1, len(distances.shape))))
    return ops.log(ops.sum(weights * distances) + _LEAST_DISTANCE)


@keras.saving.register_keras_serializable(package="keras_kd")
class SimpleRecipe(BatchLoss):
    """Logarithm of the distance between features, over the whole batch.

    The logarithm keeps the size of the gradient when the features come close. Made for the features
    before the last layer, after a projector with `BatchNormalization`; its usual weight is 1.

        loss = log(sum over examples and elements of |student - teacher|^exponent + 1e-12)

    The 1e-12 keeps value and gradient finite: the minimum, where student equals teacher, is -27.63
    and its gradient 0. The sum is over the examples too, so a batch twice as large adds log 2 to
    the value and halves each example's gradient.

    Args:
        teacher_layer_name: see `FeatureLoss`; features of any shape `(batch, ...)`.
        student_layer_name: see `FeatureLoss`.
        exponent: from 1; the paper's is 4, so that large differences count more.
        adapter: see `FeatureLoss`; it brings the student's features to the teacher's shape.

    Raises:
        TypeError: if the exponent is not a number.
        ValueError: if the exponent is below 1.

    Example:
        >>> import numpy as np
        >>> loss = SimpleRecipe(exponent=1.0)
        >>> value = loss.compute_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
        >>> round(float(value), 4)  # log(2)
        0.6931

    Reference:
        Miles, Mikolajczyk: Understanding the Role of the Projector in Knowledge Distillation, AAAI
        2024. The paper normalizes both features over the batch (BatchNormalization) before the
        difference and uses exponent 4; here the features are compared as they are: for the paper's
        recipe give a normalizing adapter, name a normalized layer of the teacher, and set
        `exponent=4.0`.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        exponent: float = 1.0,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.exponent = check_number(
            "exponent", exponent, at_least=1, fix="use an exponent such as 1 or 4"
        )

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """`log_distance` of the features."""
        return log_distance(teacher, student, weights, self.exponent)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "exponent": self.exponent}
