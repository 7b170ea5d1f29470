"""Numbers that change during training: a temperature, the weight of a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_integer, check_number, problem

__all__ = ["Schedule", "warm_up"]

# A number, a `keras.optimizers.schedules.LearningRateSchedule`, or a function of the step, which is
# a float32 scalar: arithmetic with floats then needs no casts.
Schedule = float | Callable[[Any], Any]


def warm_up(steps: int, value: float = 1.0) -> keras.optimizers.schedules.LearningRateSchedule:
    """Rise in a straight line from 0 to `value`, then stay there.

    Losses that are far from their minimum at first, such as `DecoupledKD`, train steadily when
    their weight starts like this; 20 of 240 epochs are usual there.

    Args:
        steps: how many updates of the student the rise takes.
        value: the number after it.

    Raises:
        TypeError: if `steps` is no integer or `value` no number.
        ValueError: if `steps` is below 1.

    Example:
        >>> weight = warm_up(steps=100)
        >>> [round(float(weight(step)), 3) for step in (0, 50, 100, 5000)]
        [0.0, 0.5, 1.0, 1.0]
    """
    steps = check_integer("steps", steps, at_least=1, fix="count the updates, such as 1000")
    value = check_number("value", value, fix="use the number to rise to, such as 1.0")
    return keras.optimizers.schedules.PolynomialDecay(0.0, steps, end_learning_rate=value)


def check_schedule(name: str, value: Any, **bounds: Any) -> Schedule:
    """Return a number as a float, and a function of the step as it is.

    Only its value at step 0 is checked.

    Args:
        name: the argument's name, for messages.
        value: a number, a `LearningRateSchedule` or a function of the step.
        **bounds: those of `keras_kd._checks.check_number`, and its `fix`.

    Raises:
        TypeError: if it is none of the three, or gives no number.
        ValueError: if the number is out of bounds.
    """
    if not callable(value):
        return check_number(name, value, **bounds)
    first: Any = value(ops.convert_to_tensor(0, dtype="float32"))
    try:
        first = float(first)
    except (TypeError, ValueError):
        raise problem(
            f"{name}={value!r}, which returns {first!r} for step 0",
            "a function from the step to a number",
            "return one number, computed with keras.ops from the step",
            kind=TypeError,
        ) from None
    check_number(f"{name} at step 0", first, **bounds)
    return value


def value_at(
    schedule: Schedule, step: Any, *, at_least: float | None = None, dtype: Any = "float32"
) -> Any:
    """The number at a step: a float, or a scalar tensor where it changes.

    Args:
        schedule: what `check_schedule` returned.
        step: how many updates the student has had; `None` where they are not counted.
        at_least: replaces values of a schedule below it. A compiled step cannot raise an
            error; its caller checks the value after the step, when the student is still intact.
        dtype: of the tensor.

    Raises:
        ValueError: if the number depends on a step that is not counted.
    """
    if not callable(schedule):
        return schedule
    if step is None:
        raise problem(
            f"the schedule {schedule!r} without a step",
            "the number of updates so far",
            "train with keras_kd.Distiller, which counts them, or pass step= to compute_loss",
        )
    value = ops.cast(schedule(ops.cast(step, "float32")), dtype)
    # NaN is below nothing and above nothing.
    return value if at_least is None else ops.where(value >= at_least, value, at_least)


def serialize(schedule: Schedule) -> Any:
    """A schedule as it goes into a configuration."""
    return keras.saving.serialize_keras_object(schedule) if callable(schedule) else schedule


def deserialize(config: Any) -> Any:
    """The schedule that `serialize` got; a number or an object is returned unchanged."""
    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config
