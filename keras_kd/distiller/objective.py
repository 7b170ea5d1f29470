"""The total loss of a Distiller, the same for both Kerases."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import keras

from keras_kd import _keras, _logits, schedules
from keras_kd._checks import problem
from keras_kd.adapters import Bridge
from keras_kd.losses import DistillationLoss, SoftTargets
from keras_kd.losses.logits.base import TemperedLoss
from keras_kd.taps import Tapped


class Objective:
    """total = w * hard + (1 - w) * sum_i weight_i * distillation_i

    Args:
        losses: one `keras.distillation.DistillationLoss` or a list of them; `None` for
            `SoftTargets(temperature=4.0)`.
        weights: one weight per loss, at least 0, each a number or a schedule; `None` for 1 each.
            A single loss may come with a single weight.
        student_loss_weight: w, from 0 to 1, a number or a schedule.

    Raises:
        TypeError: if a loss is not a distillation loss, or a weight not a number.
        ValueError: if numbers of losses and weights differ, or a weight is out of range.
    """

    def __init__(
        self,
        losses: Any = None,
        weights: Sequence[schedules.Schedule] | schedules.Schedule | None = None,
        student_loss_weight: schedules.Schedule = 0.5,
    ) -> None:
        if losses is None:
            losses = SoftTargets(temperature=4.0)
        self.losses = list(losses) if isinstance(losses, list | tuple) else [losses]
        if not self.losses:
            raise ValueError(
                problem(
                    "distillation_losses=[]",
                    "at least one distillation loss",
                    "pass None for SoftTargets(temperature=4.0), or train the student alone",
                )
            )
        for loss in self.losses:
            _check_loss(loss)
        self.weights = _check_weights(weights, len(self.losses))
        self.student_loss_weight = schedules.check_schedule(
            "student_loss_weight",
            student_loss_weight,
            at_least=0.0,
            at_most=1.0,
            fix="use a share such as 0.5",
        )
        self.bridges = [
            Bridge(loss, name=f"bridge_to_{name}", dtype="float32")
            for name, loss in zip(self._names(), self.losses, strict=True)
        ]

    @property
    def bridge_weights(self) -> list[keras.Variable]:
        """What trains beside the student."""
        return [weight for bridge in self.bridges for weight in bridge.trainable_weights]

    @property
    def needs_labels(self) -> bool:
        """Whether the loss on labels counts, at any time."""
        return callable(self.student_loss_weight) or self.student_loss_weight > 0.0

    @property
    def teacher_layer_names(self) -> list[str]:
        """The teacher's layers that the losses read."""
        return [name for loss in self.losses for name in _layer_names(loss, "teacher")]

    @property
    def student_layer_names(self) -> list[str]:
        """The student's layers that the losses read."""
        return [name for loss in self.losses for name in _layer_names(loss, "student")]

    @property
    def softens_outputs(self) -> bool:
        """Whether any loss applies a temperature to outputs, which only logits can bear."""
        return any(
            isinstance(loss, TemperedLoss | keras.distillation.LogitsDistillation)
            for loss in self.losses
        )

    def connect(self, teacher: Tapped, student: Tapped) -> None:
        """Make the adapters, and the losses' own weights, for outputs and features of these shapes.

        Args:
            teacher: tensors, values not needed.
            student: tensors, values not needed.

        Raises:
            ValueError: if the losses cannot compare them.
        """
        for loss, bridge in zip(self.losses, self.bridges, strict=True):
            bridge.connect(_read(teacher, loss, "teacher"), _read(student, loss, "student"))

    def distillation_loss(
        self,
        teacher: Tapped,
        student: Tapped,
        y: Any = None,
        sample_weight: Any = None,
        step: Any = None,
    ) -> Any:
        """The weighted sum of the distillation losses, a scalar.

        Args:
            teacher: what the teacher's forward pass gave.
            student: what the student's forward pass gave.
            y: labels, for the losses that need them.
            sample_weight: weights of the examples.
            step: how many updates the student has had, for schedules.
        """
        total = 0.0
        for loss, weight, bridge in zip(self.losses, self.weights, self.bridges, strict=True):
            teacher_part = _read(teacher, loss, "teacher")
            student_part = _read(student, loss, "student")
            mask = _mask(student, student_part, loss)
            if isinstance(loss, keras.distillation.LogitsDistillation):
                teacher_part, student_part = _logits_of(teacher_part), _logits_of(student_part)
            if not bridge.built:
                # Shapes that were not known before; the optimizer has not started yet.
                bridge.connect(teacher_part, student_part)
            student_part = bridge.adapt(student_part)
            loss.validate_outputs(teacher_part, student_part)
            if isinstance(loss, DistillationLoss):
                value = loss.compute_loss(
                    teacher_part,
                    student_part,
                    y=y,
                    sample_weight=sample_weight,
                    mask=mask,
                    step=step,
                )
            else:
                value = _scalar(loss, loss.compute_loss(teacher_part, student_part), sample_weight)
            total += schedules.value_at(weight, step) * value
        return total

    def total(self, student_loss: Any, distillation_loss: Any, step: Any = None) -> Any:
        """The weighted sum of the two kinds of loss."""
        weight = schedules.value_at(self.student_loss_weight, step)
        return weight * student_loss + (1.0 - weight) * keras.ops.cast(
            distillation_loss, student_loss.dtype
        )

    def scheduled_values(self, step: Any) -> dict[str, Any]:
        """What the schedules say at a step, by the name for logs; nothing for plain numbers."""
        found = {"student_loss_weight": self.student_loss_weight}
        for name, loss, weight in zip(self._names(), self.losses, self.weights, strict=True):
            found[f"{name}_weight"] = weight
            for argument, value in getattr(loss, "schedules", {}).items():
                found[f"{name}_{argument}"] = value
        return {
            name: schedules.value_at(value, step)
            for name, value in found.items()
            if callable(value)
        }

    def _names(self) -> list[str]:
        """A name for each loss, that of its class; numbered where there are several of one."""
        names = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(x).__name__).lower() for x in self.losses]
        return [
            name if names.count(name) == 1 else f"{name}_{names[:i].count(name) + 1}"
            for i, name in enumerate(names)
        ]


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, keras.distillation.DistillationLoss):
        raise TypeError(
            problem(
                f"distillation loss {loss!r} of type {type(loss).__name__}",
                "an object of keras_kd.losses or another keras.distillation.DistillationLoss",
                "pass for example keras_kd.losses.SoftTargets(temperature=4.0)",
            )
        )
    if isinstance(
        loss, keras.distillation.LogitsDistillation
    ) and keras.losses.kl_divergence in keras.tree.flatten(loss.loss):
        warnings.warn(
            problem(
                f"LogitsDistillation(temperature={loss.temperature}) with the function "
                "kl_divergence, its default, to which Keras applies neither softmax nor T^2",
                "the KL divergence of softened distributions",
                f"use keras_kd.losses.SoftTargets({loss.temperature}), or "
                "loss=keras.losses.KLDivergence()",
            ),
            stacklevel=5,
        )


def _check_weights(
    weights: Sequence[schedules.Schedule] | schedules.Schedule | None, count: int
) -> list[schedules.Schedule]:
    if weights is None:
        return [1.0] * count
    listed = [weights] if isinstance(weights, Real) or callable(weights) else list(weights)
    if len(listed) != count:
        raise ValueError(
            problem(
                f"{len(listed)} distillation_loss_weights for {count} distillation_losses",
                "one weight per loss",
                f"pass a list of {count} numbers, or None for equal weights",
            )
        )
    return [
        schedules.check_schedule(
            "distillation_loss_weights", weight, at_least=0.0, fix="use 1.0 or more or less"
        )
        for weight in listed
    ]


def _layer_names(loss: Any, side: str) -> list[str]:
    """The layers that a loss reads on one side; Keras' own feature loss names one, others none."""
    names = getattr(loss, f"{side}_layer_name", None)
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def _read(tapped: Tapped, loss: Any, side: str) -> Any:
    names = _layer_names(loss, side)
    if not names:
        return tapped.outputs
    features = [tapped.features[name] for name in names]
    if getattr(loss, "reads_outputs", False):
        return [tapped.outputs, *features]
    return features if isinstance(getattr(loss, f"{side}_layer_name"), list) else features[0]


def _mask(student: Tapped, student_part: Any, loss: Any) -> Any:
    compared = student.outputs if getattr(loss, "reads_outputs", False) else student_part
    return keras.tree.map_structure(_keras.mask_of, compared)


def _logits_of(outputs: Any) -> Any:
    return keras.tree.map_structure(lambda output: _logits.recognise_logits(output).logits, outputs)


def _scalar(loss: Any, value: Any, sample_weight: Any) -> Any:
    """Check what a loss that is not ours returned: one value that no sample weight can split."""
    shape = tuple(getattr(value, "shape", ()))
    if shape:
        raise ValueError(
            problem(
                f"a value of shape {shape} from {type(loss).__name__}.compute_loss",
                "a scalar",
                "reduce it, or subclass keras_kd.losses.DistillationLoss and return one value per "
                "example from per_example",
            )
        )
    if sample_weight is not None:
        warnings.warn(
            problem(
                f"sample weights for {type(loss).__name__}, which returns one number per batch",
                "a loss of keras_kd.losses, whose values are weighed per example",
                "use for example keras_kd.losses.SoftTargets; now the weights act on the "
                "student's own loss only",
            ),
            stacklevel=2,
        )
    return value / _keras.number_of_replicas()
