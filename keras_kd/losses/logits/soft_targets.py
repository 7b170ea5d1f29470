"""Losses between the softened distributions of both models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _backends, schedules
from keras_kd._checks import check_choice, problem
from keras_kd._logits import IMPOSSIBLE, Logits, Top
from keras_kd.losses.base import OutputKey
from keras_kd.losses.logits.base import (
    TemperedLoss,
    common_activation,
    distributions_behind,
    soften,
)
from keras_kd.schedules import Schedule

ACTIVATIONS = ("auto", "softmax", "sigmoid")


def soft_targets(
    teacher_logits: Any,
    student_logits: Any,
    *,
    temperature: float = 4.0,
    activation: str = "softmax",
) -> Any:
    """KL divergence from the teacher's softened distribution to the student's, without T^2.

    Args:
        teacher_logits: tensor of shape `(..., classes)`; no gradient flows into it.
        student_logits: tensor of the same shape.
        temperature: softens both distributions.
        activation: `"softmax"` or `"sigmoid"`, see `soften`.

    Returns:
        A tensor of shape `(...)` for softmax, `(..., classes)` for sigmoid.
    """
    return _divergence(
        soften(ops.stop_gradient(teacher_logits), temperature, activation),
        soften(student_logits, temperature, activation),
    )


def _divergence(teacher: Any, student: Any) -> Any:
    """KL divergence of distributions given by their logarithms, over the last axis."""
    teacher = ops.stop_gradient(teacher)

    @_backends.custom_gradient
    def from_teacher(student: Any) -> Any:
        probability = ops.exp(teacher)
        gap = student - teacher
        # sum p (log p - log q) cancels where p is near q, as at high temperatures, and float32
        # keeps two digits of it. Adding q - p, whose sum is 0, makes every term positive. That
        # difference is p expm1(log q - log p), which overflows where q is far larger, and there it
        # does not cancel.
        near = gap < 1.0
        excess = ops.where(
            near,
            probability * ops.expm1(ops.minimum(gap, 1.0)),
            ops.exp(student) - probability,
        )

        def gradient(upstream: Any) -> Any:
            # The derivative by log q is q - p, and is known already.
            return ops.expand_dims(upstream, axis=-1) * excess

        return ops.sum(excess - probability * gap, axis=-1), gradient

    return from_teacher(student)


def soft_cross_entropy(
    teacher_logits: Any,
    student_logits: Any,
    *,
    temperature: float = 4.0,
    activation: str = "softmax",
) -> Any:
    """Cross-entropy of the student's softened distribution under the teacher's, without T^2.

    Arguments and shapes are those of `soft_targets`, from which it differs by the entropy of the
    teacher's distribution: another value, the same gradient.
    """
    return _cross_entropy(
        soften(ops.stop_gradient(teacher_logits), temperature, activation),
        soften(student_logits, temperature, activation),
    )


def _cross_entropy(teacher: Any, student: Any) -> Any:
    """Cross-entropy of distributions given by their logarithms, over the last axis."""
    return -ops.sum(ops.exp(teacher) * student, axis=-1)


class _SoftenedLoss(TemperedLoss):
    """A loss between softened distributions: temperature, its scale, and the activation.

    A subclass names its formula on the logarithms of two distributions as `_formula`.
    """

    _formula: Callable[..., Any]

    def __init__(
        self,
        temperature: schedules.Schedule = 4.0,
        *,
        scale_by_temperature_squared: bool = True,
        activation: str = "auto",
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(temperature, outputs=outputs)
        self.scale_by_temperature_squared = bool(scale_by_temperature_squared)
        self.activation = check_choice("activation", activation, ACTIVATIONS)

    def per_example(
        self, teacher_output: Any, student_output: Any, *, step: Any = None, **context: Any
    ) -> Any:
        """The formula on the logits behind both outputs, times T^2 if requested."""
        teacher, student = distributions_behind(teacher_output, student_output)
        activation = self.activation
        if activation is None or activation == "auto":
            activation = common_activation(teacher, student)
        temperature = self.temperature_at(step, student.logits.dtype)
        if teacher.top is None:
            taught = soften(teacher.at(temperature, activation), temperature, activation)
            learned = soften(student.logits, temperature, activation)
        else:
            taught = softened_top(teacher, temperature)
            learned = soften_on_top(student.logits, temperature, teacher.top.classes)
        values = self._formula(ops.stop_gradient(taught), learned)
        return values * temperature**2 if self.scale_by_temperature_squared else values

    def check_top(self, top: Top) -> None:
        """Check that the rest of the teacher's softened distribution is known.

        Raises:
            ValueError: if it is not known at this temperature, or the classes are no distribution.
        """
        check_known(top, type(self).__name__, self.temperature, self.activation or "auto")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "scale_by_temperature_squared": self.scale_by_temperature_squared,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="keras_kd")
class SoftTargets(_SoftenedLoss):
    """Knowledge distillation (KD): KL divergence of the softened outputs, times T^2.

    Transfers what the teacher thinks of every class, the wrong ones included. The place to start.

        loss = T^2 * sum_c p_c * (log p_c - log q_c),  p = softmax(teacher / T),
                                                       q = softmax(student / T)

    The factor T^2 keeps the size of the gradient when T changes. Outputs of shape
    `(batch, ..., classes)` give one value per example and position. Models that end in a softmax
    or sigmoid are recognised and compared by their logits, also behind a change of shape: of
    softmaxes that were flattened to `(batch, k * classes)` each is a distribution. For sigmoid
    outputs, and for a single output unit, p and q are distributions over {on, off}, one for each
    class, and the values are averaged over the classes, as in `keras.losses.BinaryCrossentropy`.

    Of a teacher that was stored with `top_k`, p and q are taken over the teacher's k largest
    classes and all the others as one more: never more than the loss on all classes, from which it
    differs by p_rest * KL(p | rest, q | rest), the part within the others. T has to be one of
    the temperatures that were stored. The higher T and the more classes, the more is in the rest:
    with 16 of 1000 classes stay near T = 1.

    Args:
        temperature: T, above 0; 1 leaves the distributions as they are. A number, a
            `keras.optimizers.schedules.LearningRateSchedule` or a function of the step.
        scale_by_temperature_squared: whether to multiply by T^2.
        activation: what turns the models' logits into probabilities: `"softmax"`, `"sigmoid"`, or
            `"auto"`: that of the models where they end in one, else softmax.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if the temperature is not a number.
        ValueError: if the temperature is not above 0 or the activation is unknown.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargets(temperature=1.0)
        >>> round(float(loss.compute_loss(np.array([[0.0, 0.0]]), np.array([[0.0, 1.0]]))), 4)
        0.1201

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, NIPS workshop 2014,
        arXiv 1503.02531 (2015).
    """

    _formula = staticmethod(_divergence)


@keras.saving.register_keras_serializable(package="keras_kd")
class SoftCrossEntropy(_SoftenedLoss):
    """Cross-entropy between the softened output distributions, times T^2.

    The same gradient as `SoftTargets`; the value also holds the entropy of the teacher, so it is
    not 0 where the student equals the teacher.

        loss = -T^2 * sum_c p_c * log q_c,  p = softmax(teacher / T), q = softmax(student / T)

    Arguments, shapes and errors are those of `SoftTargets`.

    Example:
        >>> import numpy as np
        >>> loss = SoftCrossEntropy(temperature=1.0)
        >>> round(float(loss.compute_loss(np.array([[0.0, 0.0]]), np.array([[0.0, 0.0]]))), 4)
        0.6931

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, NIPS workshop 2014,
        arXiv 1503.02531 (2015).
    """

    _formula = staticmethod(_cross_entropy)


def softened_top(teacher: Logits, temperature: float) -> Any:
    """Log-probabilities of the teacher's softened distribution.

    Args:
        teacher: the k largest logits, shape `(..., k)`.
        temperature: one at which the rest is known.

    Returns:
        A tensor of shape `(..., k + 1)`, the rest last.
    """
    assert teacher.top is not None
    rest = ops.cast(teacher.top.rest[temperature], teacher.logits.dtype)
    rest = ops.expand_dims(ops.maximum(rest, IMPOSSIBLE), axis=-1)
    return ops.log_softmax(ops.concatenate([teacher.logits / temperature, rest], axis=-1), axis=-1)


def soften_on_top(logits: Any, temperature: float, classes: Any) -> Any:
    """Log-probabilities of a softened distribution, those of all but k classes as one.

    Args:
        logits: tensor of shape `(..., classes)`.
        temperature: what they are divided by; above 0.
        classes: the k classes of each row, an integer tensor of shape `(..., k)`.

    Returns:
        A tensor of shape `(..., k + 1)`, the rest last.
    """
    rows = ops.reshape(logits / temperature, (-1, logits.shape[-1]))
    chosen = ops.reshape(ops.cast(classes, "int32"), (-1, classes.shape[-1]))
    row_numbers = ops.expand_dims(ops.arange(ops.shape(chosen)[0], dtype="int32"), axis=-1)
    places = ops.stack([ops.broadcast_to(row_numbers, ops.shape(chosen)), chosen], axis=-1)
    places = ops.reshape(places, (-1, 2))
    # The mass of the rest is summed as such: 1 minus that of the k classes has no digits left where
    # it is small. Where nothing is left it is a constant, without a gradient.
    others = ops.scatter_update(
        rows, places, ops.full((ops.shape(places)[0],), IMPOSSIBLE, dtype=rows.dtype)
    )
    outcomes = ops.concatenate(
        [
            ops.take_along_axis(rows, chosen, axis=-1),
            ops.logsumexp(others, axis=-1, keepdims=True),
        ],
        axis=-1,
    )
    shape = (*ops.shape(classes)[:-1], classes.shape[-1] + 1)
    return ops.reshape(ops.log_softmax(outcomes, axis=-1), shape)


def check_known(top: Top, name: str, temperature: Schedule, activation: str) -> None:
    """Check that what is known of a teacher's logits gives its softened distribution.

    Args:
        top: what is known.
        name: that of the loss, for the message.
        temperature: that of the loss.
        activation: that of the loss, `"auto"`, `"softmax"` or `"sigmoid"`.

    Raises:
        ValueError: if the mass of the rest is not known at this temperature, or each class is a
            distribution of its own.
    """
    if activation == "sigmoid":
        raise problem(
            f"the largest logits of {top.number_of_classes} classes, stored with top_k, for "
            f"{name}(activation='sigmoid')",
            "one distribution over the classes, of which the largest are a part",
            "store the teacher's outputs without top_k",
        )
    known = ", ".join(f"{one}" for one in top.rest)
    if callable(temperature) or temperature not in top.rest:
        asked = "a schedule" if callable(temperature) else f"{temperature}"
        raise problem(
            f"temperature={asked} in {name} for logits stored with top_k, the mass of the rest "
            f"at the temperatures {known}",
            "a temperature that was stored",
            f"use {name}(temperature={next(iter(top.rest))}), or store the teacher's outputs "
            "again, with other temperatures=(...) or without top_k",
        )
