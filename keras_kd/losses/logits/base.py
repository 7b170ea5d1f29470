"""Losses on the models' outputs: the logits behind them, and the temperature that softens them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_kd import _logits, schedules
from keras_kd._checks import problem
from keras_kd.losses.base import DistillationLoss, OutputKey

# What a schedule that falls to 0 or below gives instead, until an error is raised.
_LOWEST_TEMPERATURE = 1e-3


class TemperedLoss(DistillationLoss):
    """A loss with a temperature, a number or a schedule.

    Args:
        temperature: above 0; a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            function of the step.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if the temperature is no number and gives none.
        ValueError: if the temperature is not above 0.
    """

    softened = ("teacher", "student")

    def __init__(
        self,
        temperature: schedules.Schedule = 4.0,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(outputs=outputs)
        self.temperature = schedules.check_schedule(
            "temperature", temperature, above=0, fix="use a temperature such as 4.0"
        )

    def temperature_at(self, step: Any, dtype: Any = "float32") -> Any:
        """The temperature at a step, above 0: a float, or a scalar tensor from a schedule."""
        return schedules.value_at(self.temperature, step, at_least=_LOWEST_TEMPERATURE, dtype=dtype)

    @property
    def schedules(self) -> dict[str, schedules.Schedule]:
        """The arguments that may change with the step, by name."""
        return {"temperature": self.temperature}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "temperature": schedules.serialize(self.temperature),
        }


def soften(logits: Any, temperature: float, activation: str = "softmax") -> Any:
    """Log-probabilities of the softened distributions, computed in log space.

    Args:
        logits: tensor of shape `(..., classes)`.
        temperature: what the logits are divided by; above 0.
        activation: `"softmax"`, one distribution over the classes, or `"sigmoid"`, one
            distribution over {on, off} for each class.

    Returns:
        A tensor whose last axis is a distribution: `(..., classes)` for softmax,
        `(..., classes, 2)` for sigmoid.
    """
    scaled = logits / temperature
    if activation == "sigmoid":
        return ops.stack([ops.log_sigmoid(scaled), ops.log_sigmoid(-scaled)], axis=-1)
    return ops.log_softmax(scaled, axis=-1)


def logits_behind(
    teacher_output: Any, student_output: Any
) -> tuple[_logits.Logits, _logits.Logits]:
    """The logits of both, in the precision of the student's.

    Raises:
        ValueError: if the classes of one are not on the last axis.
    """
    teacher = _logits.recognise_logits(teacher_output)
    student = _logits.recognise_logits(student_output)
    if _logits.OTHER_AXIS in (teacher.activation, student.activation):
        raise problem(
            f"an output of shape {tuple(student.logits.shape)} from a {_logits.OTHER_AXIS}",
            "the classes on the last axis",
            "put keras.layers.Permute and a softmax over the last axis at the model's end",
        )
    logits = ops.cast(teacher.logits, student.logits.dtype)
    return dataclasses.replace(teacher, logits=logits), student


def distributions_behind(
    teacher_output: Any, student_output: Any
) -> tuple[_logits.Logits, _logits.Logits]:
    """`logits_behind`, with one distribution on the last axis.

    An output of several distributions in a row, such as a flattened map of softmaxes, gets an axis
    for them: `(batch, k * classes)` becomes `(batch, k, classes)`. An output without an axis for
    classes, shape `(batch,)`, is that of a single unit.

    Raises:
        ValueError: if the classes of one are not on the last axis, or the distributions differ.
    """
    teacher, student = logits_behind(teacher_output, student_output)
    if len(student.logits.shape) == 1:
        teacher, student = (
            one.changed(lambda units: ops.expand_dims(units, axis=-1)) for one in (teacher, student)
        )
        return teacher, student
    return _logits.common_rows(teacher, student)


def common_activation(teacher: _logits.Logits, student: _logits.Logits) -> str:
    """What turns these logits into probabilities, as far as the models show it.

    Raises:
        ValueError: if one ends in a softmax and the other in a sigmoid.
    """
    seen = {one.activation for one in (teacher, student) if one.activation is not None}
    if len(seen) == 2:
        raise problem(
            f"a teacher that ends in a {teacher.activation} and a student that ends in a "
            f"{student.activation}",
            "the same kind of output from both",
            "give both models the same last activation, or pass activation='softmax' or "
            "'sigmoid' to the distillation loss",
        )
    if seen:
        return seen.pop()
    # A softmax over one class is 1 for every logit: a single unit can only mean on or off.
    return "sigmoid" if student.logits.shape[-1] == 1 else "softmax"


def class_logits(
    teacher_output: Any, student_output: Any, name: str
) -> tuple[_logits.Logits, _logits.Logits]:
    """`distributions_behind`, for a formula that needs one distribution over several classes.

    Args:
        teacher_output: tensor of shape `(batch, ..., classes)`.
        student_output: tensor of the same shape.
        name: the loss's name, for the message.

    Raises:
        ValueError: if an output is one of {on, off} for each class, or of a single unit.
    """
    teacher, student = distributions_behind(teacher_output, student_output)
    if student.logits.shape[-1] == 1 or "sigmoid" in (teacher.activation, student.activation):
        raise problem(
            f"an output of shape {tuple(student.logits.shape)} for {name}, whose units are "
            "independent",
            "one distribution over at least two classes",
            "use keras_kd.losses.SoftTargets, which takes sigmoid outputs, or end both models "
            "in logits or a softmax",
        )
    return teacher, student
