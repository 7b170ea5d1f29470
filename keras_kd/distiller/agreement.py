"""The teacher's and the student's outputs for `keras_kd.metrics.Agreement`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import problem
from keras_kd._logits import recognise_logits
from keras_kd.distiller.matching import matched
from keras_kd.losses import SoftTargets
from keras_kd.losses.base import outputs_by_key
from keras_kd.metrics.agreement import Agreement

# Matches outputs as a loss on classes has them.
_ON_CLASSES = SoftTargets()


def compare(metric: Agreement, teacher: Any, student: Any) -> None:
    """Add a batch to the metric.

    Args:
        metric: what counts.
        teacher: the teacher's outputs, a structure of tensors; None if it gives features alone.
        student: the student's.

    Raises:
        ValueError: if the models have no outputs in common.
    """
    if teacher is not None:
        teacher, student = matched(teacher, student, _ON_CLASSES)
    others = {} if teacher is None else outputs_by_key(teacher)
    pairs = [
        (others[key], output)
        for key, output in outputs_by_key(student).items()
        if key in others and not keras.tree.is_nested(others[key])
    ]
    if not pairs:
        raise problem(
            "keras_kd.metrics.Agreement for models without a common output",
            "a teacher and a student with outputs for the same classes",
            "leave the metric out of compile",
        )
    for pair in pairs:
        metric.update_state(*map(_choosing, pair))


def _choosing(output: Any) -> Any:
    """The logits behind an output, all of them."""
    seen = recognise_logits(output)
    if seen.top is None:
        # A mean of several models' probabilities has no logits of its own.
        return output if seen.members is not None else seen.logits
    # The largest is among those that are known.
    best = ops.take_along_axis(
        seen.top.classes, ops.expand_dims(ops.argmax(seen.logits, axis=-1), -1), axis=-1
    )
    return ops.one_hot(best[..., 0], seen.top.number_of_classes)
