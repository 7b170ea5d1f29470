"""The steps of a Distiller as functions, made in one way on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_kd import _backends
from keras_kd._checks import problem
from keras_kd.distiller.teaching import Teaching


class Steps(Teaching):
    """Checks before the first step and after each.

    A subclass for each backend has `train_step` and `test_step`.
    """

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        """A training step, followed by a check of the teacher's outputs.

        Raises:
            ValueError: if the student has nothing to train, or the backend cannot run the step.
        """
        self._check_step()
        return self._make("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Callable[..., Any]:
        """An evaluation step, followed by a check of the teacher's outputs.

        Raises:
            ValueError: if the backend cannot run the step.
        """
        self._settle_terms()
        return self._make("test", super().make_test_function, force)

    def _make(self, name: str, make: Callable[[bool], Any], force: bool) -> Callable[..., Any]:
        """Keras' function for a kind of step, with what a Distiller does around it."""
        self._check_backend()
        attribute = f"{name}_function"
        if getattr(self, attribute) is None or force:
            make(force)
            function = self._prepared(getattr(self, f"{name}_step"), getattr(self, attribute))
            setattr(self, attribute, self._watched(function))
        return getattr(self, attribute)

    def _check_backend(self) -> None:
        """Check that the backend can run a step of these models on these devices."""
        raise NotImplementedError

    def _prepared(
        self, step: Callable[..., Any], by_keras: Callable[..., Any]
    ) -> Callable[..., Any]:
        """A function that does a step on an iterator's next batch, as `by_keras` does."""
        return by_keras

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            with _backends.numpy_errors_in_one_line():
                returned = function(*arguments)
            # On JAX the state follows the logs.
            self._check_logs(returned[0] if isinstance(returned, tuple) else returned)
            return returned

        return step

    def _bring_notes(self) -> None:
        """Make the notes of the last step readable, where they are not yet."""

    def _check_step(self) -> None:
        """Check before the first step that the student can learn.

        Raises:
            ValueError: if it has nothing to train.
        """
        self._settle_terms()
        if self.student.built and not self.student.trainable_weights:
            raise problem(
                f"a student {self.student.name!r} without trainable weights",
                "a student with trainable weights",
                "set trainable = True on the student and on each of student.layers, and do not "
                "build the student of layers of the teacher alone, which is frozen",
            )

    def _check_logs(self, logs: dict[str, Any]) -> None:
        """Read what a step has noted, and report what is wrong.

        Raises:
            ValueError: if the teacher's outputs were NaN or infinite, or a schedule out of bounds.
        """
        if self._teacher_watch.is_due(logs.get(self.distillation_loss_tracker.name)):
            self._bring_notes()
            self._teacher_watch.report()
        self._student_watch.report()
        self._objective.check_scheduled_values(logs)
        # A student that had no shapes before has them now, and can be saved.
        if self.student.built and not self.built:
            self.built = True
