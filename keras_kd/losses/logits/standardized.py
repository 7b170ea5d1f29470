"""Soft targets of standardized logits: the ranking of the classes without its scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import schedules
from keras_kd.losses.base import OutputKey
from keras_kd.losses.logits.base import TemperedLoss, class_logits
from keras_kd.losses.logits.soft_targets import soft_targets

# Deviations below the rounding of float32 do not depend on the values.
_ROUNDING = 1e-7


def deviations_from_mean(values: Any, weights: Any, *, axis: int = -1) -> tuple[Any, Any, Any]:
    """Deviations from the weighted mean along an axis, and how large they are.

    Args:
        values: tensor of any shape.
        weights: what each value counts, broadcastable to `values` with the size of `axis`.
        axis: the axis of the mean.

    Returns:
        The deviations, of the shape of `values`; the weighted sum of their squares, with size 1
        along `axis`; and, of the same shape, whether the values are all the same but for rounding.
    """

    def total(summands: Any) -> Any:
        return ops.sum(weights * summands, axis=axis, keepdims=True)

    number = ops.sum(weights, axis=axis, keepdims=True)
    deviations = values
    # The second time takes away what the first one's rounding left.
    for _ in range(2):
        deviations = deviations - ops.divide_no_nan(total(deviations), number)
    squares = total(ops.square(deviations))
    flat = squares <= _ROUNDING**2 * total(ops.square(values))
    return deviations, squares, flat


# The authors' guard against constant logits; part of the definition.
_EPSILON = 1e-7


def standardize(logits: Any) -> Any:
    """Deviations from the mean over the classes, in units of their standard deviation.

    The standard deviation is that of a sample (divided by classes - 1). Where all logits are the
    same there is none, and 1 takes its place: the values stay 0 and the gradient finite.

    Args:
        logits: tensor of shape `(..., classes)`.
    """
    deviations, squares, flat = deviations_from_mean(logits, ops.ones_like(logits))
    variance = squares / (logits.shape[-1] - 1)
    # Chosen before the square root, whose slope at 0 is infinite.
    return deviations / (ops.sqrt(ops.where(flat, 1.0, variance)) + _EPSILON)


@keras.saving.register_keras_serializable(package="keras_kd")
class StandardizedSoftTargets(TemperedLoss):
    """Logit standardization (LSKD): KL divergence of softened standardized logits, without T^2.

    Transfers how the teacher's logits lie to each other, not how large they are, which a small
    student can seldom match. Use it where the teacher is far larger than the student.

        loss = sum_c p_c * (log p_c - log q_c),  p = softmax(Z(teacher) / T),
                                                 q = softmax(Z(student) / T),
            Z(z) = (z - mean(z)) / (std(z) + 1e-7),  std over the classes, divided by classes - 1

    The authors multiply it by a weight of 9 and more beside the loss on labels. Outputs of shape
    `(batch, ..., classes)` give one value per example and position. Models that end in a softmax
    are recognised and compared by their logits. Logits that are all the same are standardized as
    if their deviation was 1.

    Args:
        temperature: T, above 0; a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            function of the step.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if the temperature is not a number.
        ValueError: if the temperature is not above 0. When called: if the outputs are no
            distribution over at least two classes.

    Example:
        >>> import numpy as np
        >>> loss = StandardizedSoftTargets(temperature=1.0)
        >>> teacher, student = np.array([[2.0, 1.0, 0.0]]), np.array([[2.0, 0.0, 1.0]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        0.1547

    Reference:
        Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation, CVPR 2024. The
        authors' code multiplies by T^2 and a weight; here that is left to the loss's weight.
    """

    def __init__(
        self,
        temperature: schedules.Schedule = 2.0,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(temperature, outputs=outputs)

    def per_example(
        self, teacher_output: Any, student_output: Any, *, step: Any = None, **context: Any
    ) -> Any:
        """`soft_targets` of the standardized logits behind both outputs."""
        teacher, student = class_logits(teacher_output, student_output, type(self).__name__)
        return soft_targets(
            standardize(teacher.logits),
            standardize(student.logits),
            temperature=self.temperature_at(step, student.logits.dtype),
        )
