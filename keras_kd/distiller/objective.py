"""The total loss of a Distiller, the same for Keras 3 and tf_keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_kd import _replicas, schedules
from keras_kd._checks import check_number, problem, three_parts
from keras_kd._masks import Lost, mask_or_lost
from keras_kd.adapters import Bridge
from keras_kd.distiller.default_losses import advice_for, kind_of_loss
from keras_kd.distiller.matching import matched
from keras_kd.distiller.replicas import of_whole_batch, reads_whole_batch
from keras_kd.losses import DistillationLoss, SoftTargets
from keras_kd.losses.base import outputs_by_key
from keras_kd.losses.foreign import as_loss
from keras_kd.losses.named import get, name_of
from keras_kd.losses.reduction import weight_of_examples
from keras_kd.taps import Tapped


class Objective:
    """total = w * hard + (1 - w) * sum_i weight_i * distillation_i

    Args:
        losses: one `keras.distillation.DistillationLoss` or its name (see
            `keras_kd.losses.get`), or a list of them; `None` for `SoftTargets(temperature=4.0)`,
            until `choose` takes others.
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
        self.is_default = losses is None
        if losses is None:
            losses = SoftTargets(temperature=4.0)
        losses = list(losses) if isinstance(losses, list | tuple) else [losses]
        if not losses:
            raise problem(
                "distillation_losses=[]",
                "at least one distillation loss",
                "pass None for SoftTargets(temperature=4.0), or LogitsMSE() for numbers",
            )
        self.losses = []
        for loss in losses:
            self.losses.append(_checked_loss(loss))
        self.set_weights(weights)
        self.set_student_loss_weight(student_loss_weight)
        self._bounds = self._bounds_of_schedules()
        self._check_adapters()
        self.bridges = self._new_bridges()

    @property
    def _losses(self) -> list[DistillationLoss]:
        """The losses in the form of this package's; users may put others into `losses`."""
        return list(map(as_loss, self.losses))

    def choose(self, losses: Sequence[Any]) -> bool:
        """Take these losses if the user gave none; they have no trainable weights.

        Returns:
            Whether they are others than before.
        """
        if not self.is_default or list(map(_described, losses)) == list(
            map(_described, self.losses)
        ):
            return False
        self.losses = list(losses)
        self.weights = [self.weights[0]] * len(losses)
        self._bounds = self._bounds_of_schedules()
        self.bridges = self._new_bridges()
        return True

    @property
    def given_losses(self) -> tuple[list[Any] | None, Any]:
        """Losses and weights as the constructor takes them: without losses that were chosen."""
        alike = self.weights.count(self.weights[0]) == len(self.weights)
        return (None, self.weights[0]) if self.is_default and alike else (self.losses, self.weights)

    def _new_bridges(self) -> list[Bridge]:
        return [
            Bridge(loss, name=f"bridge_to_{name}", dtype="float32")
            for name, loss in zip(self.names, self._losses, strict=True)
        ]

    def set_weights(
        self, weights: Sequence[schedules.Schedule] | schedules.Schedule | None
    ) -> None:
        """Set one weight per loss, see the constructor."""
        self.weights = _check_weights(weights, len(self._losses))

    def set_student_loss_weight(self, weight: schedules.Schedule) -> None:
        """Set the share of the loss on labels, see the constructor."""
        self.student_loss_weight = schedules.check_schedule(
            "student_loss_weight",
            weight,
            at_least=0.0,
            at_most=1.0,
            fix="use a share such as 0.5",
        )

    @property
    def terms(self) -> tuple[list[Any], list[schedules.Schedule]]:
        """The losses and their weights, in new lists."""
        return list(self.losses), list(self.weights)

    def _bounds_of_schedules(self) -> dict[str, dict[str, Any]]:
        fix = "let the schedule end within these bounds"
        bounds = {"student_loss_weight": {"at_least": 0.0, "at_most": 1.0, "fix": fix}}
        for name, loss in zip(self.names, self._losses, strict=True):
            bounds[f"{name}_weight"] = {"at_least": 0.0, "fix": fix}
            for argument in loss.schedules:
                bound = "above" if argument == "temperature" else "at_least"
                bounds[f"{name}_{argument}"] = {bound: 0.0, "fix": fix}
        return bounds

    def _check_adapters(self) -> None:
        """Check that no adapter serves two losses: each loss is saved with its own."""
        given = [
            layer
            for loss in self._losses
            for layer in keras.tree.flatten(loss.adapter)
            if isinstance(layer, keras.layers.Layer)
        ]
        twice = [layer for layer in given if given.count(layer) > 1]
        if twice:
            raise problem(
                f"the adapter {twice[0].name!r} in several places",
                "an adapter for each layer of each loss",
                "make one layer for each",
            )

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
        return [name for loss in self._losses for name in loss.layers("teacher")]

    @property
    def student_layer_names(self) -> list[str]:
        """The student's layers that the losses read."""
        return [name for loss in self._losses for name in loss.layers("student")]

    def softened(self, side: str, outputs: Any) -> list[Any]:
        """Those of a model's outputs to which a loss applies a softmax, which only logits allow.

        Args:
            side: "teacher" or "student".
            outputs: the model's outputs.
        """
        named = outputs_by_key(outputs)
        found = {}
        for loss in self._losses:
            if side in loss.softened:
                for key in named if loss.outputs is None else loss.outputs:
                    found.update({id(part): part for part in keras.tree.flatten(named.get(key))})
        return [
            part
            for part in found.values()
            if part is not None and "float" in keras.backend.standardize_dtype(part.dtype)
        ]

    def connect(self, teacher: Tapped, student: Tapped) -> None:
        """Make the adapters, and the losses' own weights, for outputs and features of these shapes.

        Args:
            teacher: tensors, values not needed.
            student: tensors, values not needed.

        Raises:
            ValueError: if the losses cannot compare them.
        """
        for loss, bridge in zip(self._losses, self.bridges, strict=True):
            bridge.connect(*_read(teacher, student, loss))

    def connect_shapes(self, shapes: Sequence[list[Any] | None]) -> None:
        """Connect as before saving, where there is no teacher yet whose shapes are known.

        Args:
            shapes: `Bridge.shapes` for each loss.
        """
        for bridge, known in zip(self.bridges, shapes, strict=True):
            if known is not None and not bridge.built:
                bridge.connect(*(_tensors(structure) for structure in known))

    def distillation_loss(
        self,
        teacher: Tapped,
        student: Tapped,
        y: Any = None,
        sample_weight: Any = None,
        step: Any = None,
        labeled: tuple[Any, Any] | None = None,
        see: Callable[[str, Any], None] | None = None,
        gather: bool = True,
    ) -> Any:
        """The weighted sum of the distillation losses, a scalar: a replica's share of it.

        Args:
            teacher: what the teacher's forward pass gave.
            student: what the student's forward pass gave.
            y: labels, for the losses that need them.
            sample_weight: weights of the examples.
            step: how many updates the student has had, for schedules.
            labeled: labels and weights that leave out examples without a label, for the losses that
                read labels; `None` where every example has one.
            see: gets the name of each loss and its value before its weight.
            gather: whether losses that compare examples with one another get those of all replicas.
        """
        values = []
        terms = zip(self.names, self._losses, self.weights, self.bridges, strict=True)
        for name, loss, weight, bridge in terms:
            targets = (y, sample_weight) if labeled is None or not loss.reads_labels else labeled
            value = _value_of(loss, bridge, teacher, student, targets, step, gather)
            if see is not None:
                see(name, value)
            values.append(schedules.value_at(weight, step, at_least=0.0, dtype=value.dtype) * value)
        dtype = keras.backend.result_type(*(value.dtype for value in values))
        return sum(keras.ops.cast(value, dtype) for value in values)

    def total(self, student_loss: Any, distillation_loss: Any, step: Any = None) -> Any:
        """The weighted sum of the two kinds of loss."""
        weight = schedules.value_at(
            self.student_loss_weight, step, at_least=0.0, dtype=student_loss.dtype
        )
        return weight * student_loss + (1.0 - weight) * keras.ops.cast(
            distillation_loss, student_loss.dtype
        )

    @property
    def settings(self) -> dict[str, schedules.Schedule]:
        """The weights, temperatures and other numbers that can change, by the name for logs."""
        found = {"student_loss_weight": self.student_loss_weight}
        for name, loss, weight in zip(self.names, self._losses, self.weights, strict=True):
            found[f"{name}_weight"] = weight
            for argument, value in loss.schedules.items():
                found[f"{name}_{argument}"] = value
        return found

    def scheduled_values(self, step: Any) -> dict[str, Any]:
        """The values of schedules at a step, by the name for logs; nothing for plain numbers."""
        return {
            name: schedules.value_at(value, step)
            for name, value in self.settings.items()
            if callable(value)
        }

    def check_scheduled_values(self, logs: dict[str, Any]) -> None:
        """Check the values of schedules in a step, which could not raise an error.

        Raises:
            ValueError: if a temperature, a weight or a share was out of bounds.
        """
        for name in self._bounds:
            if name in logs:
                check_number(f"{name}, from its schedule,", float(logs[name]), **self._bounds[name])

    @property
    def names(self) -> list[str]:
        """A name for each loss, that of its class; numbered where there are several of one."""
        names = [name_of(type(loss)) for loss in self.losses]
        return [
            name if names.count(name) == 1 else f"{name}_{names[:i].count(name) + 1}"
            for i, name in enumerate(names)
        ]


def _described(loss: keras.distillation.DistillationLoss) -> tuple[str, Any]:
    return type(loss).__name__, loss.get_config()


def _value_of(
    loss: DistillationLoss,
    bridge: Bridge,
    teacher: Tapped,
    student: Tapped,
    targets: tuple[Any, Any],
    step: Any,
    gather: bool,
) -> Any:
    """One loss, unweighted."""
    y, sample_weight = targets
    mask = _mask(student, loss, sample_weight)
    teacher_part, student_part = _read(teacher, student, loss)
    if not bridge.built:
        # Shapes that were not known before; the optimizer has not started yet.
        bridge.connect(teacher_part, student_part)
    student_part = bridge.adapt(student_part)
    loss.validate_outputs(teacher_part, student_part)
    if not loss.reads_outputs:
        sample_weight = _one_weight(sample_weight)

    def compute(teacher: Any, student: Any, y: Any, sample_weight: Any, mask: Any) -> Any:
        return loss.compute_loss(
            teacher, student, y=y, sample_weight=sample_weight, mask=mask, step=step
        )

    if _replicas.number() == 1 or not reads_whole_batch(loss):
        return compute(teacher_part, student_part, y, sample_weight, mask)
    y = y if loss.reads_labels else None
    return of_whole_batch(compute, teacher_part, student_part, (y, sample_weight, mask), gather)


def _one_weight(sample_weight: Any) -> Any:
    """The weights of examples, also where there are several, for the labels of several outputs."""
    parts = [part for part in keras.tree.flatten(sample_weight) if part is not None]
    if not keras.tree.is_nested(sample_weight) or not parts:
        return parts[0] if parts else None
    return sum(weight_of_examples(part) for part in parts) / len(parts)


def _tensors(shapes: Any) -> Any:
    """Tensors without values for a structure of shapes."""
    if isinstance(shapes, dict):
        return {name: _tensors(part) for name, part in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.KerasTensor(tuple(shapes))
    return [_tensors(part) for part in shapes]


def _checked_loss(loss: Any) -> Any:
    """The distillation loss, also where its name is given."""
    if isinstance(loss, str) and kind_of_loss(loss) is None:
        return get(loss)
    if not isinstance(loss, keras.distillation.DistillationLoss):
        raise problem(
            f"distillation loss {loss!r} of type {type(loss).__name__}",
            "an object of keras_kd.losses, its name or another keras.distillation.DistillationLoss",
            f"pass for example {advice_for(loss)}",
            kind=TypeError,
        )
    given: Any = loss
    if isinstance(
        loss, keras.distillation.LogitsDistillation
    ) and keras.losses.kl_divergence in keras.tree.flatten(given.loss):
        warnings.warn(
            three_parts(
                f"LogitsDistillation(temperature={given.temperature}) with the function "
                "kl_divergence, its default, to which Keras applies neither softmax nor T^2",
                "the KL divergence of softened distributions",
                f"use keras_kd.losses.SoftTargets({given.temperature}), or "
                "loss=keras.losses.KLDivergence()",
            ),
            stacklevel=5,
        )
    return loss


def _check_weights(
    weights: Sequence[schedules.Schedule] | schedules.Schedule | None, count: int
) -> list[schedules.Schedule]:
    if weights is None:
        return [1.0] * count
    listed = list(weights) if isinstance(weights, Sequence | np.ndarray) else [weights]
    if len(listed) != count:
        raise problem(
            f"{len(listed)} distillation_loss_weights for {count} distillation_losses",
            "one weight per loss",
            f"pass a list of {count} numbers, or None for equal weights",
        )
    return [
        schedules.check_schedule(
            "distillation_loss_weights", weight, at_least=0.0, fix="use 1.0 or more or less"
        )
        for weight in listed
    ]


def _read(teacher: Tapped, student: Tapped, loss: DistillationLoss) -> tuple[Any, Any]:
    """What a loss compares: the teacher's outputs in the form of the student's, or features."""
    if loss.reads_outputs:
        if teacher.outputs is None:
            raise problem(
                f"{type(loss.original).__name__} with a teacher that gives features alone",
                "a teacher that gives outputs, which this loss compares",
                "store them too, as in keras_kd.teachers.StoredTeacher.create(..., "
                "outputs=['logits', "
                "'layer']), or give losses that name layers",
            )
        outputs = matched(teacher.outputs, student.outputs, loss)
        teacher, student = (
            one._replace(outputs=outputs)
            for one, outputs in zip((teacher, student), outputs, strict=True)
        )
    return loss.read("teacher", *teacher), loss.read("student", *student)


def _mask(student: Tapped, loss: DistillationLoss, sample_weight: Any) -> Any:
    """The masks of what a loss compares, also those that Keras dropped on the way."""
    compared = student.outputs if loss.reads_outputs else loss.read("student", *student)
    masks = keras.tree.map_structure(mask_or_lost, compared)
    read = masks
    if loss.reads_outputs and loss.outputs is not None:
        named = outputs_by_key(masks)
        read = [named.get(key, named.get(None)) for key in loss.outputs]
    for lost in keras.tree.flatten(read):
        if isinstance(lost, Lost) and not _has_weights_of_positions(sample_weight):
            warnings.warn(
                three_parts(
                    f"outputs or features of the student for {type(loss.original).__name__} whose "
                    f"mask was lost in {lost.place!r}: padding counts",
                    "a mask of the positions that count",
                    "where that layer keeps the positions, set its `supports_masking = True`; "
                    "elsewhere give sample weights of shape (batch, positions), 0 for padding",
                ),
                stacklevel=2,
            )
    return keras.tree.map_structure(lambda mask: None if isinstance(mask, Lost) else mask, masks)


def _has_weights_of_positions(sample_weight: Any) -> bool:
    parts = [part for part in keras.tree.flatten(sample_weight) if part is not None]
    return any(len(part.shape) > 1 and part.shape[1] != 1 for part in parts)
