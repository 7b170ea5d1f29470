"""Distributions over a teacher's k largest classes, and all the others as one more outcome."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_kd._checks import problem
from keras_kd._logits import IMPOSSIBLE, Logits, Top
from keras_kd.schedules import Schedule


def softened_top(teacher: Logits, temperature: float) -> Any:
    """Log-probabilities of the teacher's softened distribution.

    Args:
        teacher: logits of which the k largest are known, shape `(..., k)`.
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
