"""Hard targets: the class that the teacher decides for, as a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.base import DistillationLoss, OutputKey
from keras_kd.losses.logits.base import class_logits


def hard_targets(teacher_logits: Any, student_logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy with the teacher's largest class: `(..., classes)` to `(...)`."""
    log_probabilities = ops.log_softmax(student_logits, axis=-1)
    decided = ops.expand_dims(ops.argmax(teacher_logits, axis=-1), axis=-1)
    chosen = ops.take_along_axis(log_probabilities, decided, axis=-1)[..., 0]
    if label_smoothing == 0.0:
        return -chosen
    mean = ops.mean(log_probabilities, axis=-1)
    return -((1.0 - label_smoothing) * chosen + label_smoothing * mean)


@keras.saving.register_keras_serializable(package="keras_kd")
class HardTargets(DistillationLoss):
    """Hard distillation, as in DeiT: cross-entropy with the class of the teacher's largest logit.

    Transfers decisions, as labels of the augmented image. With a student of two
    heads it is DeiT's distillation by a separate token: labels teach one head, the teacher the
    other, `HardTargets(outputs="distillation")`. Its usual weight is 1 at student_loss_weight 0.5.

        loss = -(1 - s) * log q_y - s * mean_c log q_c,  y = argmax of the teacher, q = softmax of
                                                         the student, s the label smoothing

    Outputs of shape `(batch, ..., classes)` give one value per example and position. The value is
    not 0 where student equals teacher. Models that end in a softmax are recognised and compared by
    their logits.

    Args:
        label_smoothing: s, from 0 to 1, the share of the target that is spread over all classes.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if the label smoothing is not a number.
        ValueError: if it is not from 0 to 1.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]])
        >>> round(float(HardTargets().compute_loss(teacher, student)), 4)
        0.6931

    Reference:
        Touvron, Cord, Douze, Massa, Sablayrolles, Jegou: Training data-efficient image transformers
        & distillation through attention, ICML 2021.
    """

    # Of the teacher's outputs it takes the largest, which is the same of probabilities.
    softened = ("student",)

    def __init__(
        self,
        label_smoothing: float = 0.0,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(outputs=outputs)
        self.label_smoothing = check_number(
            "label_smoothing", label_smoothing, at_least=0, at_most=1, fix="use 0.0 or 0.1"
        )

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`hard_targets` of the logits behind both outputs."""
        teacher, student = class_logits(teacher_output, student_output, type(self).__name__)
        return hard_targets(teacher.at(1.0, "softmax"), student.logits, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
