"""The steps of a Distiller on TensorFlow, for students of Keras 3 and of tf_keras."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_kd import _backends
from keras_kd.distiller.steps import Steps
from keras_kd.distiller.strategies import (
    check_strategy,
    first_part,
    in_shape_of_logs,
    merged_logs,
    taken_losses,
)


class TensorFlowTeaching(Steps):
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

    def _check_backend(self) -> None:
        check_strategy(self)

    def _prepared(
        self, step: Callable[..., Any], by_keras: Callable[..., Any]
    ) -> Callable[..., Any]:
        function = _backends.traced_once(self._compiled_step(step, by_keras))

        def forgetting(iterator: Any) -> Any:
            try:
                return function(iterator)
            except (StopIteration, tf.errors.OpError):
                # The step is sound: the data are not, or at their end.
                raise
            except BaseException:
                # TensorFlow cannot use a step whose first trace failed or was interrupted.
                self._forget_steps()
                raise

        return forgetting

    def _compiled_step(
        self, step: Callable[[Any], Any], by_keras: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        """A compiled function that does a step on an iterator's next batch, as `by_keras` does."""
        return by_keras

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


class CompiledStep:
    """A step on the next batch of an iterator, called as `keras.Model.train_function` is.

    The function that Keras makes wraps the logs of each step in an optional value, which Python
    unwraps again, and TensorFlow looks for its trace in each call, by the types of the iterator and
    of all variables. For a small student that takes as long as a convolution. Here the logs come as
    they are, and the trace is looked for once per iterator.

    Args:
        step: takes the data of a batch and returns logs, as `keras.Model.train_step` does.
        jit_compile: whether XLA compiles the step.
        by_keras: Keras' function for the same step, for iterators that are none of `tf.data`, such
            as those of `tf.distribute`, and where `tf.config.run_functions_eagerly` is on.
    """

    def __init__(
        self,
        step: Callable[[Any], dict[str, Any]],
        jit_compile: bool,
        by_keras: Callable[[Any], dict[str, Any]],
    ) -> None:
        step = _backends.without_autograph(step)
        compiled = tf.function(step, jit_compile=jit_compile, reduce_retracing=True)

        def next_step(iterator: Any) -> dict[str, Any]:
            return compiled(keras.tree.map_structure(_none_for_optional, iterator.get_next()))

        self._function = tf.function(_backends.without_autograph(next_step), reduce_retracing=True)
        self._by_keras = by_keras
        self._traced = None
        self._traced_for: Callable[[], Any] = lambda: None

    def __call__(self, iterator: Any) -> dict[str, Any]:
        """The logs of the step on the iterator's next batch.

        Raises:
            tf.errors.OutOfRangeError: if there is none, which ends an epoch.
        """
        if not isinstance(iterator, tf.data.Iterator) or tf.config.functions_run_eagerly():
            return self._by_keras(iterator)
        if self._traced_for() is not iterator:
            self._traced = self._function.get_concrete_function(iterator)
            # The data are the caller's to keep or to let go.
            self._traced_for = weakref.ref(iterator)
        assert self._traced is not None
        return self._traced(iterator)


def _none_for_optional(part: Any) -> Any:
    """Keras' generators yield `None`, which `tf.data` lacks, as an optional without value."""
    return None if isinstance(part, tf.experimental.Optional) else part
