"""Conversion of the teacher's outputs to the form of the student's, where it is exact."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_kd import _graphs
from keras_kd._checks import problem, shapes_fit
from keras_kd._logits import Logits, recognise_logits, remember_logits, taught_classes
from keras_kd.losses import DistillationLoss
from keras_kd.losses.base import shape_of
from keras_kd.teachers.base import single_output
from keras_kd.teachers.classes import take_columns


def matched(teacher: Any, student: Any, loss: DistillationLoss) -> tuple[Any, Any]:
    """The outputs of both models as a loss compares them.

    A single output of the teacher is taken out of a dict or list, or put into one, as the student
    has it. Of the student's classes those are taken that the teacher has. Two units of a softmax
    and one unit of a sigmoid become each other: the logit z represents the logits [0, z].

    Args:
        teacher: the teacher's outputs, a structure of tensors, values not needed.
        student: the student's.
        loss: the loss.

    Raises:
        ValueError: if the teacher has classes that the student does not have.
    """
    if loss.outputs is None:
        teacher = _as_structured(teacher, student)
    if isinstance(teacher, dict) and isinstance(student, dict):
        pairs = {key: _pair(teacher[key], student[key], loss) for key in student if key in teacher}
        return (
            {**teacher, **{key: pair[0] for key, pair in pairs.items()}},
            {**student, **{key: pair[1] for key, pair in pairs.items()}},
        )
    if isinstance(teacher, list | tuple) and isinstance(student, list | tuple):
        pairs = [_pair(*pair, loss) for pair in zip(teacher, student, strict=False)]
        count = len(pairs)
        return (
            [*(pair[0] for pair in pairs), *teacher[count:]],
            [*(pair[1] for pair in pairs), *student[count:]],
        )
    if keras.tree.is_nested(teacher) or keras.tree.is_nested(student):
        return teacher, student
    return _pair(teacher, student, loss)


def _as_structured(teacher: Any, student: Any) -> Any:
    """The teacher's single output in the structure of the student's single output."""
    if not keras.tree.is_nested(student):
        alone = single_output(teacher)
        return teacher if alone is None else alone
    if keras.tree.is_nested(teacher) or len(student) != 1:
        return teacher
    return dict.fromkeys(student, teacher) if isinstance(student, dict) else [teacher]


def _pair(teacher: Any, student: Any, loss: DistillationLoss) -> tuple[Any, Any]:
    if keras.tree.is_nested(teacher) or keras.tree.is_nested(student):
        return teacher, student
    classes = taught_classes(teacher)
    if classes is not None:
        if max(classes) >= student.shape[-1]:
            raise problem(
                f"a teacher of the class {max(classes)} for a student's output of shape "
                f"{tuple(student.shape)}",
                f"class indexes from 0 to {student.shape[-1] - 1}",
                "correct classes=... of the teacher",
            )
        student = take_columns(student, classes)
    return _same_units(teacher, student, loss), student


def _same_units(teacher: Any, student: Any, loss: DistillationLoss) -> Any:
    """The teacher's output with as many units as the student's, two or one, for the same two."""
    sizes = (*teacher.shape[-1:], *student.shape[-1:])
    if sizes not in ((1, 2), (2, 1)) or not _is_refused(teacher, student, loss):
        return teacher
    two_units, one_unit = (teacher, student) if sizes[0] == 2 else (student, teacher)
    kinds = _activation(two_units), _activation(one_unit)
    is_for_classes = bool(loss.softened) or kinds[0] == "softmax" or kinds[1] == "sigmoid"
    expected = "softmax" if sizes[1] == 2 else "sigmoid"
    if (
        not is_for_classes
        or kinds[0] not in (None, "softmax")
        or kinds[1] not in (None, "sigmoid")
        or loss.activation not in (None, "auto", expected)
    ):
        return teacher
    if _graphs.is_symbolic(teacher):
        return keras.KerasTensor(tuple(student.shape))
    return _with_units(recognise_logits(teacher), sizes[1], expected, teacher)


def _with_units(seen: Logits, units: int, activation: str, teacher: Any) -> Any:
    if seen.top is not None or seen.known is not None:
        return teacher

    def changed(logits: Any) -> Any:
        if units == 1:
            return logits[..., 1:] - logits[..., :1]
        return ops.concatenate([ops.zeros_like(logits), logits], axis=-1)

    logits = changed(seen.logits)
    members = None if seen.members is None else changed(seen.members)
    remember_logits(
        logits,
        dataclasses.replace(seen, logits=logits, activation=activation, members=members),
    )
    return logits


def _is_refused(teacher: Any, student: Any, loss: DistillationLoss) -> bool:
    """Whether a loss cannot compare outputs of these shapes: some compare any."""
    if not shapes_fit(teacher.shape[:-1], student.shape[:-1]):
        return False
    try:
        loss.check_shapes(None, shape_of(teacher), shape_of(student))
    except ValueError:
        return True
    return False


def _activation(output: Any) -> str | None:
    """What an output is seen to come from, also before there are values."""
    if not _graphs.is_symbolic(output):
        return recognise_logits(output).activation
    name = _graphs.last_activation(output)
    return name if name in ("softmax", "sigmoid") else None
