"""State that `with_student` passes on to the next distiller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_kd._optimizers import recipe_of
from keras_kd.adapters import Bridge
from keras_kd.losses.foreign import as_loss


class CompileArguments:
    """What `compile` was given; the optimizer as it was then, before it took a step.

    Args:
        optimizer: a name or an optimizer of either Keras.
        **others: the other arguments; losses and metrics begin anew with every training.
    """

    def __init__(self, optimizer: Any, **others: Any) -> None:
        self._optimizer = optimizer
        self._recipe = recipe_of(optimizer) if hasattr(optimizer, "get_config") else None
        self._others = others

    @property
    def loss(self) -> Any:
        """The loss on labels; `None` where there is none."""
        return self._others["loss"]

    @property
    def jit_compile(self) -> Any:
        """Whether XLA is to compile the step."""
        return self._others.get("jit_compile")

    @property
    def steps_per_execution(self) -> Any:
        """How many steps Keras calls at once."""
        return self._others.get("steps_per_execution")

    def fresh(self, learning_rate: Any = None) -> dict[str, Any]:
        """The arguments for another model, with an optimizer that has no state yet.

        Args:
            learning_rate: a number or a schedule; None for that of `compile`.

        Raises:
            ValueError: if no other optimizer of its class can be made.
        """
        optimizer = self._optimizer
        if isinstance(optimizer, str) and learning_rate is not None:
            optimizer = type(keras.optimizers.get(optimizer))(learning_rate)
        elif self._recipe is not None:
            optimizer = self._recipe(learning_rate)
        return {"optimizer": optimizer, **self._others}

    def given(self) -> dict[str, Any]:
        """The arguments themselves, for an optimizer that has not begun."""
        return {"optimizer": self._optimizer, **self._others}


def successor(distiller: Any, student: Any, learning_rate: Any, make: Callable[..., Any]) -> Any:
    """See `Distiller.with_student`; `make` is the class to make it of."""
    losses, weights = distiller._objective.given_losses
    other = make(
        distiller.teacher,
        student,
        None if losses is None else fresh_losses(losses),
        weights,
        distiller.student_loss_weight,
        name=distiller.name,
        teacher_inputs=distiller.teacher_inputs,
        student_inputs=distiller.student_inputs,
        missing_label=distiller.missing_label,
        save_teacher=distiller.save_teacher,
        gather_batches=distiller.gather_batches,
    )
    if losses is not None:
        carry_over(distiller._objective.bridges, other._objective.bridges)
    arguments = distiller._compile_arguments.value
    if arguments is not None:
        other.compile(**arguments.fresh(learning_rate))
    return other


def fresh_losses(losses: Sequence[Any]) -> list[Any]:
    """The losses, those that hold weights as copies: other features may need other shapes."""
    return [
        type(loss).from_config(loss.get_config()) if _holds_weights(loss) else loss
        for loss in losses
    ]


def _holds_weights(loss: Any) -> bool:
    loss = as_loss(loss)
    adapters = keras.tree.flatten(loss.adapter)
    return bool(loss.weights) or any(isinstance(each, keras.layers.Layer) for each in adapters)


def carry_over(old: Sequence[Bridge], new: Sequence[Bridge]) -> None:
    """Give the new bridges what the old ones have learned, where the shapes are the same."""
    for one, other in zip(old, new, strict=True):
        if one.built and other.built and _shapes(one) == _shapes(other):
            other.set_weights(one.get_weights())


def _shapes(bridge: Bridge) -> list[tuple]:
    return [tuple(weight.shape) for weight in bridge.weights]
