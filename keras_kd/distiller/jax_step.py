"""The steps of a Distiller on JAX, which take and return all state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import keras

from keras_kd._checks import problem
from keras_kd.distiller.steps import Steps

# Trainable variables, other ones, those of the optimizer and of metrics.
State = tuple[list[Any], ...]


class JaxTeaching(Steps):
    """Steps that Keras compiles with `jax.jit`.

    Values of variables are arguments and results of a step. The teacher's variables are among them:
    those that a compiled function finds elsewhere would become constants in it.
    """

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """What a step reads or changes without gradients, the teacher's variables included."""
        own = list(super().non_trainable_variables)
        parts = vars(self).get("_parts")
        if parts is None or parts.value.teacher is None:
            return own
        known = {id(variable) for variable in [*self.variables, *own]}
        for model in parts.value.teacher.models:
            for variable in model.variables:
                if id(variable) not in known:
                    known.add(id(variable))
                    own.append(variable)
        return own

    @property
    def metrics_variables(self) -> list[keras.Variable]:
        """Those of metrics, and the notes of a step on the models' outputs."""
        return [*super().metrics_variables, *self._notes()]

    def _notes(self) -> list[keras.Variable]:
        watches = [vars(self).get(name) for name in ("_teacher_watch", "_student_watch")]
        return [note for watch in watches if watch is not None for note in watch.notes]

    def train_step(self, state: State, data: Any) -> tuple[dict[str, Any], State]:
        """One step: one forward pass of each model, then gradients for the student only."""
        trainable, other, of_optimizer, of_metrics = state
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

        def scaled_loss(trainable: list[Any]) -> tuple[Any, Any]:
            with self._with_values(trainable, other, of_metrics, of_optimizer) as scope:
                loss, outputs, weight = self._loss_of_batch(x, y, sample_weight, nullcontext)
                logs = self._results(loss, x, y, outputs, weight) | self._scheduled_values()
                scaled = self.optimizer.scale_loss(loss)
            return scaled, (logs, *self._values(scope))

        gradients, (logs, other, of_metrics) = jax.grad(scaled_loss, has_aux=True)(trainable)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        if self.teacher is not None:
            with self._with_values(trainable, other, of_metrics, of_optimizer) as scope:
                self.teacher.after_step(self.student, self._step())
            other, of_metrics = self._values(scope)
        return logs, (trainable, other, of_optimizer, of_metrics)

    def test_step(self, state: State, data: Any) -> tuple[dict[str, Any], State]:
        """One step of evaluation: the same losses, and no weight changes."""
        with self._with_values(*state) as scope:
            logs = self._test_batch(data)
        return logs, (state[0], *self._values(scope))

    def _with_values(
        self, trainable: Any, other: Any, of_metrics: Any, of_optimizer: Any = ()
    ) -> keras.StatelessScope:
        """A scope in which variables have these values."""
        variables = [*self.trainable_variables, *self.non_trainable_variables]
        variables += self.metrics_variables
        values = [*trainable, *other, *of_metrics]
        if len(of_optimizer):
            variables += self.optimizer.variables
            values += of_optimizer
        pairs = list(zip(variables, values, strict=True))
        return keras.StatelessScope(state_mapping=pairs, collect_losses=True)

    def _values(self, scope: keras.StatelessScope) -> tuple[list[Any], list[Any]]:
        """The values of variables without gradients, and of metrics, in a scope."""

        def now(variables: Sequence[keras.Variable]) -> list[Any]:
            return [scope.get_current_value(variable) for variable in variables]

        return now(self.non_trainable_variables), now(self.metrics_variables)

    def _check_backend(self) -> None:
        self._check_bridges()
        _check_distribution()
        if self._teacher_watch is not None:
            self._teacher_watch.begin()

    def _remember(self, state: State) -> None:
        """Keep the values that Keras gives back to variables where a step ends in an error."""
        names = _NAMES if len(state) == len(_NAMES) else [_NAMES[0], _NAMES[1], _NAMES[3]]
        self._jax_state = {
            f"{name}_variables": values for name, values in zip(names, state, strict=True)
        }

    def _check_bridges(self) -> None:
        """Check that there is nothing left to be made in the first step, which is compiled."""
        if self.teacher is not None and not all(one.built for one in self._objective.bridges):
            raise problem(
                f"a student {self.student.name!r} or a teacher whose shapes are not known before "
                "the first step",
                "models of known shapes",
                "build them first, student.build(input_shape), or call them on a batch",
            )

    def _prepared(
        self, step: Callable[..., Any], by_keras: Callable[..., Any]
    ) -> Callable[..., Any]:
        is_first = True

        def remembering(state: State, iterator: Any) -> tuple[dict[str, Any], State]:
            nonlocal is_first
            if is_first:
                # The step reuses the memory of its arguments. If the first one fails,
                # the models have their weights nevertheless.
                self._remember(state)
                state = jax.tree.map(jax.numpy.copy, state)
                is_first = False
            logs, state = by_keras(state, iterator)
            self._remember(state)
            return logs, state

        return remembering

    def _bring_notes(self) -> None:
        # Notes are last among the variables of metrics.
        notes = self._notes()
        values = self._jax_state["metrics_variables"][-len(notes) :]
        for variable, value in zip(notes, values, strict=True):
            variable.assign(value)


_NAMES = "trainable", "non_trainable", "optimizer", "metrics"


def _check_distribution() -> None:
    distribution = keras.distribution.distribution()
    if distribution is not None and not isinstance(distribution, keras.distribution.DataParallel):
        raise problem(
            f"{type(distribution).__name__} for a Distiller",
            "keras.distribution.DataParallel, or one device",
            "call keras.distribution.set_distribution(keras.distribution.DataParallel()) before "
            "the models are built",
        )
