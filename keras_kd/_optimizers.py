"""Copies of optimizers, with their settings and without their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_kd._checks import one_line, problem


def settings_of(optimizer: Any) -> dict[str, Any]:
    """The arguments from which an optimizer of either Keras is made again.

    A learning-rate schedule stays the object that it is: it has no state, and those of users are
    not always registered, or have no `get_config` at all.
    """
    schedule = getattr(optimizer, "_learning_rate", None)
    if not callable(schedule):
        return optimizer.get_config()
    try:
        # Past the tracking of attributes, and restored before they are read.
        object.__setattr__(optimizer, "_learning_rate", 1.0)
        return {**optimizer.get_config(), "learning_rate": schedule}
    finally:
        object.__setattr__(optimizer, "_learning_rate", schedule)


def recipe_of(optimizer: Any) -> Callable[[Any], Any]:
    """How to make a copy of an optimizer in its present state, also after it has changed.

    Returns:
        A function of a learning rate, a number or a schedule, or `None` for the optimizer's own. It
        raises a `ValueError` where the optimizer's class has no configuration.
    """
    if hasattr(optimizer, "inner_optimizer"):
        inner = recipe_of(optimizer.inner_optimizer)
        names = ("dynamic", "initial_scale", "dynamic_growth_steps")
        options = {name: getattr(optimizer, name) for name in names if hasattr(optimizer, name)}
        return lambda learning_rate: type(optimizer)(inner(learning_rate), **options)
    try:
        settings, reason = settings_of(optimizer), None
    except Exception as error:
        # The class may be a user's; an error comes only where another optimizer is needed.
        settings, reason = None, error

    def make(learning_rate: Any) -> Any:
        if settings is None:
            raise _not_made(optimizer, reason)
        changed = {} if learning_rate is None else {"learning_rate": learning_rate}
        try:
            return type(optimizer).from_config({**settings, **changed})
        except Exception as error:
            raise _not_made(optimizer, error) from error

    return make


def _not_made(optimizer: Any, reason: BaseException | None) -> ValueError:
    return problem(
        f"the optimizer {type(optimizer).__name__} for another student: "
        f"{type(reason).__name__}: {one_line(reason)[:200]}",
        "an optimizer with get_config, from which another one can be made",
        "give its class a get_config, or build a new keras_kd.Distiller with the student and "
        "compile it with a new optimizer",
    )
