"""Decoupled distillation: separate weights for the target class and for the other classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import schedules
from keras_kd._checks import problem, shapes_fit
from keras_kd.losses.base import OutputKey
from keras_kd.losses.logits.base import TemperedLoss, class_logits
from keras_kd.losses.logits.soft_targets import soft_targets


def decoupled(
    teacher_logits: Any,
    student_logits: Any,
    labels: Any,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Any:
    """Divergence on {target, other} and divergence among the others, weighted, without T^2.

    Args:
        teacher_logits: tensor of shape `(..., classes)`; no gradient flows into it.
        student_logits: tensor of the same shape.
        labels: the target classes, integers of shape `(...)`. The value of one that is no class is
            NaN.
        temperature: softens both distributions.
        alpha: weight of the target class against the others.
        beta: weight of the others among themselves.

    Returns:
        A tensor of shape `(...)`.
    """
    classes = student_logits.shape[-1]
    label = ops.clip(labels, 0, classes - 1)
    teacher, student = (
        _target_apart(logits, label, temperature) for logits in (teacher_logits, student_logits)
    )
    of_target, of_others = (
        soft_targets(*logits, temperature=temperature)
        for logits in zip(teacher, student, strict=True)
    )
    values = alpha * of_target + beta * of_others
    return ops.where(ops.equal(labels, label), values, float("nan"))


def _target_apart(logits: Any, label: Any, temperature: float) -> tuple[Any, Any]:
    """Logits of {target, any other}, `(..., 2)`, and of the others, `(..., classes - 1)`."""
    label = ops.expand_dims(label, axis=-1)
    # Picking the others keeps their logits as they are; the authors' code subtracts 1000 from the
    # target's, which no longer hides it where logits are that large.
    index = ops.broadcast_to(
        ops.arange(logits.shape[-1] - 1, dtype=label.dtype),
        ops.shape(logits[..., 1:]),
    )
    others = ops.take_along_axis(logits, index + ops.cast(index >= label, index.dtype), axis=-1)
    target = ops.take_along_axis(logits, label, axis=-1)
    any_other = temperature * ops.logsumexp(others / temperature, axis=-1, keepdims=True)
    return ops.concatenate([target, any_other], axis=-1), others


@keras.saving.register_keras_serializable(package="keras_kd")
class DecoupledKD(TemperedLoss):
    """Decoupled knowledge distillation (DKD): KL divergence in two weighted parts, times T^2.

    Transfers the teacher's confidence in the labelled class, and its distribution over the others.
    `SoftTargets` weighs the second part by the teacher's doubt in the label, so that little of it
    is left where the teacher is sure; here it counts in full. Needs the labels.

        loss = T^2 * (alpha * KL(b_teacher, b_student) + beta * KL(o_teacher, o_student)),
            b = (p_y, 1 - p_y),  o_c = p_c / (1 - p_y) for the classes c other than y,
            p = softmax(logits / T)

    Its usual weight is 1, reached slowly, since the second part is large at first: 20 of 240
    epochs of warm-up with `distillation_loss_weights=[keras_kd.schedules.warm_up(steps)]`.

    Labels are integers of shape `(batch, ...)` or `(batch, ..., 1)`, or one-hot of the shape of
    the outputs `(batch, ..., classes)`, where the largest entry is the label. There is one value
    per example and position. A label that is no class (-1, say) makes the loss NaN unless it is
    masked or of weight 0. Models that end in a softmax are recognised and compared by their logits.
    Keras' own `keras.distillation.Distiller` hands no labels to distillation losses.

    Args:
        temperature: T, above 0. This and the next two: a number, a
            `keras.optimizers.schedules.LearningRateSchedule` or a function of the step.
        alpha: weight of the labelled class against all others, at least 0.
        beta: weight of the others among themselves, at least 0.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range. When called: if labels are missing or do not fit
            the outputs, or the outputs are no distribution over at least two classes.

    Example:
        >>> import numpy as np
        >>> loss = DecoupledKD(temperature=1.0, alpha=1.0, beta=2.0)
        >>> teacher, student = np.array([[2.0, 1.0, 0.0]]), np.array([[2.0, 0.0, 1.0]])
        >>> round(float(loss.compute_loss(teacher, student, y=np.array([0]))), 4)
        0.9242

    Reference:
        Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, CVPR 2022. Computed from
        logarithms throughout, where the authors' code takes the logarithm of a softmax, which is
        infinite for large logits.
    """

    reads_labels = True

    def __init__(
        self,
        temperature: schedules.Schedule = 4.0,
        alpha: schedules.Schedule = 1.0,
        beta: schedules.Schedule = 8.0,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(temperature, outputs=outputs)
        self.alpha = schedules.check_schedule(
            "alpha", alpha, at_least=0, fix="use a weight such as 1.0"
        )
        self.beta = schedules.check_schedule(
            "beta", beta, at_least=0, fix="use a weight such as 8.0"
        )

    @property
    def schedules(self) -> dict[str, schedules.Schedule]:
        """The arguments that may change with the step, by name."""
        return {**super().schedules, "alpha": self.alpha, "beta": self.beta}

    def per_example(
        self,
        teacher_output: Any,
        student_output: Any,
        *,
        y: Any = None,
        step: Any = None,
        **context: Any,
    ) -> Any:
        """`decoupled` on the logits behind both outputs, times T^2."""
        teacher, student = class_logits(teacher_output, student_output, type(self).__name__)
        dtype = student.logits.dtype
        temperature = self.temperature_at(step, dtype)
        alpha, beta = (
            schedules.value_at(weight, step, at_least=0.0, dtype=dtype)
            for weight in (self.alpha, self.beta)
        )
        labels = _class_indices(y, tuple(student.logits.shape))
        values = decoupled(
            teacher.at(temperature, "softmax"),
            student.logits,
            labels,
            temperature=temperature,
            alpha=alpha,
            beta=beta,
        )
        return temperature**2 * values

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "alpha": schedules.serialize(self.alpha),
            "beta": schedules.serialize(self.beta),
        }


def _class_indices(y: Any, output_shape: tuple[int | None, ...]) -> Any:
    """Labels in any form as int32 of shape `(batch, ...)`."""
    *positions, classes = output_shape
    labels: Any = None if y is None else ops.convert_to_tensor(y)
    shape = None if y is None else tuple(labels.shape)
    if shape is not None and shapes_fit(shape, positions):
        return ops.cast(labels, "int32")
    if shape and shape[-1] == 1 and shapes_fit(shape[:-1], positions):
        return ops.cast(ops.squeeze(labels, axis=-1), "int32")
    if shape and shape[-1] == classes and shapes_fit(shape[:-1], positions):
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    received = "no labels" if y is None else f"labels of shape {shape}"
    raise problem(
        f"{received} for DecoupledKD on outputs of shape {output_shape}",
        f"integer labels of shape {tuple(positions)}, or one-hot labels of shape {output_shape}",
        "train with keras_kd.Distiller on pairs (x, y), or pass y= to compute_loss"
        if y is None
        else "reshape the labels, or name the output they belong to with outputs=[...]",
    )
