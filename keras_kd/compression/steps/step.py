"""One step of a pipeline, and the allowed orders of steps."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Sequence
from typing import Any

from keras_kd._checks import check_integer, check_number, problem
from keras_kd._keras import short
from keras_kd.compression.families import BY_NAME


class Step:
    """One compression, and how long its result is distilled.

    Args:
        kind: "factorize", "remove_filters", "prune", "cluster" or "quantize_aware": the function of
            this name in `keras_kd.compression`.
        epochs: how long the compressed student is trained. 0 compresses only; "prune" needs 1 at
            least.
        learning_rate: a number or a schedule for this step; None for that of the distiller.
        **settings: arguments of the function.

    Raises:
        TypeError: if `epochs` is no whole number, or `learning_rate` no number or schedule.
        ValueError: if there is no such compression, it has no such argument, or a number is out of
            range.

    Example:
        >>> Step("prune", epochs=3, sparsity=0.7)
        prune(sparsity=0.7), 3 epochs
    """

    def __init__(
        self, kind: str, epochs: int = 1, *, learning_rate: Any = None, **settings: Any
    ) -> None:
        self.kind = _known("kind", kind, BY_NAME)
        self.family = BY_NAME[kind]
        at_least = 1 if self.family.needs_training else 0
        self.epochs = check_integer("epochs", epochs, at_least=at_least, fix="use 2 or more")
        if learning_rate is not None and not callable(learning_rate):
            fix = "try 1e-4, or a schedule of keras.optimizers.schedules"
            check_number("learning_rate", learning_rate, above=0, fix=fix)
        self.learning_rate = learning_rate
        self.settings = settings
        parameters = list(inspect.signature(self.family.function).parameters)[1:]
        for name in settings:
            _known(f"argument of {kind}", name, parameters)

    def __call__(self, student: Any, **more: Any) -> Any:
        """The compressed student, not yet trained."""
        return self.family.function(student, **{**more, **self.settings})

    def takes(self, argument: str) -> bool:
        """Whether the compression has an argument that this step does not set."""
        parameters = inspect.signature(self.family.function).parameters
        return argument in parameters and argument not in self.settings

    def described(self) -> dict[str, Any]:
        """The arguments of the step, in the types of JSON."""
        asked = {
            "kind": self.kind,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "settings": self.settings,
        }
        return json.loads(json.dumps(asked, default=_named))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={_short(value)}" for name, value in self.settings.items())
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"{self.kind}({settings}), {epochs}"


def check_order(steps: Sequence[Step]) -> None:
    """Check that no step undoes the result of an earlier one.

    Raises:
        TypeError: if something is no `Step`.
        ValueError: if there is no step, or an impossible order; with the reason.
    """
    for step in steps:
        if not isinstance(step, Step):
            raise problem(
                f"{_short(step)} of type {type(step).__name__} among the steps",
                "objects of keras_kd.compression.Step",
                'write Step("prune", epochs=3, sparsity=0.7)',
                kind=TypeError,
            )
    kinds = [step.kind for step in steps]
    if not kinds:
        raise problem("no steps", "at least one", 'pass [Step("quantize_aware", epochs=3)]')
    for number, later in enumerate(kinds):
        for earlier in kinds[:number]:
            reason = BY_NAME[earlier].is_final or BY_NAME[later].undoes.get(earlier)
            if earlier == later:
                reason = reason or "once with the final setting does the same in less time"
            if reason is not None:
                raise problem(
                    f"the step {later!r} after {earlier!r}",
                    f"another order: {reason}",
                    f"order the steps as {', '.join(BY_NAME)}, or leave one out",
                )


def _known(argument: str, name: Any, names: Any) -> str:
    if name in names:
        return name
    close = difflib.get_close_matches(str(name), names, n=1)
    raise problem(
        f"{argument} {_short(name)}",
        "one of " + ", ".join(names),
        f"write {close[0]!r}" if close else "correct the name",
    )


def _named(value: Any) -> Any:
    """The JSON value for a value that it has no type for."""
    if hasattr(value, "get_config") and not isinstance(value, type):
        return {type(value).__name__: value.get_config()}
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else repr(value)


def _short(value: Any) -> str:
    return short(getattr(value, "__name__", value))
