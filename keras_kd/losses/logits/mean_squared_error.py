"""The mean squared difference of the logits."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.logits.base import logits_behind


def logits_mean_squared_error(teacher_logits: Any, student_logits: Any) -> Any:
    """Mean over the classes of the squared differences: `(..., classes)` to `(...)`."""
    return ops.mean(ops.square(ops.stop_gradient(teacher_logits) - student_logits), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class LogitsMSE(DistillationLoss):
    """Mean squared difference of the logits.

    Makes the student a regression of the teacher's logits; also the limit of `SoftTargets` at
    high temperature (for centred logits, up to a constant). Fits regression models as well.

        loss = mean_c (teacher_c - student_c)^2

    Outputs of shape `(batch, ..., classes)` give one value per example and position. Models that
    end in a softmax or sigmoid are recognised and compared by their logits.

    Args:
        outputs: the outputs to compare, see `DistillationLoss`.

    Example:
        >>> import numpy as np
        >>> float(LogitsMSE().compute_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])))
        2.0

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep?, NIPS 2014.
    """

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`logits_mean_squared_error` of the logits behind both outputs."""
        teacher, student = logits_behind(teacher_output, student_output)
        return logits_mean_squared_error(teacher.logits, student.logits)
