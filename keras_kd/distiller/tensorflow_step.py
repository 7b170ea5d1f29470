"""The steps of a Distiller on TensorFlow, for students of Keras 3 and of tf_keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_kd import _backends
from keras_kd.distiller.compiled_step import CompiledStep
from keras_kd.distiller.strategies import (
    check_strategy,
    first_part,
    in_shape_of_logs,
    merged_logs,
    taken_losses,
)
from keras_kd.distiller.teaching import Teaching


class TensorFlowTeaching(Teaching):
    """Steps that Keras compiles with `tf.function`, also on the replicas of `tf.distribute`."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step: one forward pass of each model, then gradients for the student only."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss, outputs, sample_weight = self._loss_of_batch(
                x, y, sample_weight, tape.stop_recording
            )
            scaled_loss = self._scaled(loss)
        scheduled = self._scheduled_values()
        self._apply_gradients(scaled_loss, tape)
        if self.teacher is not None:
            self.teacher.after_step(self.student, self._step())
        results = self._results(loss, x, y, outputs, sample_weight) | scheduled
        return in_shape_of_logs(self, results)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of evaluation: the same losses, and no weight changes.

        Data without stored outputs are measured by their labels alone.
        """
        return in_shape_of_logs(self, self._test_batch(data))

    def _apply_gradients(self, loss: Any, tape: tf.GradientTape) -> None:
        """Take a step of the optimizer."""
        raise NotImplementedError

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        """A compiled step, followed by a check of the teacher's outputs.

        Raises:
            ValueError: if the student has nothing to train.
        """
        self._check_step()
        return self._make("train", super().make_train_function, force)

    def make_test_function(self, force: bool = False) -> Callable[..., Any]:
        """A compiled evaluation step, followed by a check of the teacher's outputs."""
        self._settle_terms()
        return self._make("test", super().make_test_function, force)

    def _make(self, name: str, make: Callable[[bool], Any], force: bool) -> Callable[..., Any]:
        """The function of Keras' for a kind of step, with what a Distiller does around it."""
        check_strategy(self)
        attribute = f"{name}_function"
        if getattr(self, attribute) is None or force:
            make(force)
            step = getattr(self, f"{name}_step")
            function = self._compiled_step(step, getattr(self, attribute))
            setattr(self, attribute, self._watched(function))
        return getattr(self, attribute)

    def _compiled_step(
        self, step: Callable[[Any], Any], by_keras: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        """A function that does a step on an iterator's next batch, as `by_keras` does."""
        return by_keras

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        function = _backends.traced_once(function)

        def step(iterator: Any) -> Any:
            with _backends.numpy_errors_in_one_line():
                try:
                    logs = function(iterator)
                except (StopIteration, tf.errors.OpError):
                    # The step is sound: the data are not, or at their end.
                    raise
                except BaseException:
                    # TensorFlow cannot go on with one whose first trace failed or was interrupted.
                    self._forget_steps()
                    raise
            self._check_logs(logs)
            return logs

        return step

    def _taken_losses(self) -> Sequence[Any]:
        return taken_losses(self.student)

    def _scope_of_metrics(self) -> Any:
        return self.distribute_strategy.scope()


class Keras3Teaching(TensorFlowTeaching):
    """The steps of a Keras 3 model on TensorFlow."""

    def _apply_gradients(self, loss: Any, tape: tf.GradientTape) -> None:
        weights = self.trainable_weights
        gradients = tape.gradient(loss, weights)
        if not self.optimizer.built:
            with tf.init_scope():
                self.optimizer.build(weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))

    def _scaled(self, loss: Any) -> Any:
        return self.optimizer.scale_loss(loss)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Build what is not built from the first batch; Keras calls this before the first step."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
            return
        check_strategy(self)
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=first_part(self, iterator, data_batch))

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        """The logs of an epoch, of the metrics as all replicas have them."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return super()._get_metrics_result_or_logs(logs)
        return merged_logs(logs, self.get_metrics_result())

    def _compiled_step(
        self, step: Callable[[Any], Any], by_keras: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        if self.run_eagerly or self.steps_per_execution != 1:
            return by_keras
        return CompiledStep(step, self.jit_compile, by_keras)
