"""Hints: the squared difference of hidden features."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.features.base import FeatureLoss


def hint(teacher_features: Any, student_features: Any) -> Any:
    """Mean over the channels of the squared differences: `(..., channels)` to `(...)`."""
    return ops.mean(ops.square(student_features - teacher_features), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class Hint(FeatureLoss):
    """Hints of FitNets: mean squared difference of hidden features.

    Guides a hidden layer of the student by one of the teacher, the "hint". The plainest of the
    feature losses; its usual weight is 100.

        loss = mean over positions and channels of (student - teacher)^2

    Features of shape `(batch, ..., channels)` give one value per example and position, so masks of
    sequences count. Arguments and errors are those of `FeatureLoss`; an adapter brings the
    student's features to the teacher's shape, as the regressor of the paper does.

    Example:
        >>> import numpy as np
        >>> loss = Hint("block3", "block2")
        >>> float(loss.compute_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])))
        2.0

    Reference:
        Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets, ICLR
        2015. Where the paper sums over the features, the mean is taken here, as in the
        implementations in common use.
    """

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`hint` of the features."""
        return hint(teacher_output, student_output)
