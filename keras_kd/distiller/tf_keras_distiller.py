"""The Distiller for tf_keras students, among them those that TF-MOT prunes and quantizes.

Imported only where a student is a tf_keras model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from keras_kd._checks import problem
from keras_kd._translation import TakesKeras3
from keras_kd.distiller.replicas import label_loss
from keras_kd.distiller.strategies import merged_logs
from keras_kd.distiller.tensorflow_step import TensorFlowTeaching


class TfKerasDistiller(TensorFlowTeaching, TakesKeras3, tf_keras.Model):
    """What `keras_kd.Distiller` gives for a `tf_keras` student; see there.

    Strings and objects of Keras 3 (optimizers, losses, metrics, callbacks) are taken as well as
    those of tf_keras. Callbacks that the student needs while it trains are added by `fit`.

    Save the student rather than the distiller: `distiller.student.save`, or
    `keras_kd.compression.strip` for a plain Keras 3 model. Weights files and
    `keras_kd.callbacks.ResumeTraining` work, without the teacher. `save_teacher` is taken for the
    sake of the common call; no file of this distiller holds the teacher.
    """

    def _begin_model(self) -> None:
        self._autocast = False
        self.supports_jit = True
        # The logs of several replicas, which are the same on each: tf_keras would add them up.
        self.distribute_reduction_method = "first"
        # Past tf_keras' tracking, which would count the trackers' sums among the weights.
        attributes: Any = vars(self)
        attributes.update(
            student_loss_tracker=tf_keras.metrics.Mean(name="student_loss"),
            distillation_loss_tracker=tf_keras.metrics.Mean(name="distillation_loss"),
            total_loss_tracker=tf_keras.metrics.Mean(name="total_loss"),
            _loss_tracker=tf_keras.metrics.Mean(name="loss"),
        )

    @property
    def metrics(self) -> list[Any]:
        """The trackers of the losses, then the compiled metrics."""
        # tf_keras' own mean of the loss on labels would appear as `loss` beside the total.
        per_output = [] if self.compiled_loss is None else self.compiled_loss.metrics[1:]
        compiled = [] if self.compiled_metrics is None else self.compiled_metrics.metrics
        metrics = self._trackers() + per_output + compiled
        return metrics + self._shown_metrics(metrics)

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Configure training; see `keras_kd.Distiller.compile`.

        Raises:
            ValueError: if there is no loss on labels although it has a weight, or tf_keras has no
                counterpart to an optimizer or loss of Keras 3.
        """
        self._begin_compile(optimizer, loss, metrics, kwargs)
        super().compile(optimizer=optimizer, loss=loss, **self._measured(metrics, kwargs))

    def _needed_callbacks(self) -> Sequence[tf_keras.callbacks.Callback]:
        return needed_callbacks(self.student)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Not possible.

        Raises:
            ValueError: always. A file of this distiller could not be loaded.
        """
        raise self._not_saved()

    def get_config(self) -> dict[str, Any]:
        """Not possible either; functions of tf_keras that save a model read it.

        Raises:
            ValueError: always.
        """
        raise self._not_saved()

    def _not_saved(self) -> ValueError:
        return problem(
            f"a call to save {self.name!r}, a distiller with a tf_keras student",
            "the student to be saved, or the weights",
            "call distiller.student.save('student.h5') or distiller.save_weights, and give "
            "callbacks such as ModelCheckpoint save_weights_only=True",
        )

    def _apply_gradients(self, loss: Any, tape: tf.GradientTape) -> None:
        self._check_bridges()
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)

    def _check_bridges(self) -> None:
        """Check that all weights of the losses were there to be tracked."""
        if len(self._objective.bridge_weights) > len(self._bridge_variables):
            raise problem(
                f"a tf_keras student {self.student.name!r} whose shapes are not known before "
                "the first step, for losses with weights to train with it",
                "a student of known shapes",
                "make it with tf_keras.Model(inputs, outputs)",
            )

    def reset_metrics(self) -> None:
        """Start all means anew."""
        super().reset_metrics()
        if self.compiled_loss is not None:
            self.compiled_loss.reset_state()

    def _validate_and_get_metrics_result(self, logs: Any) -> Any:
        """The logs of an epoch, of the metrics as all replicas have them."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return super()._validate_and_get_metrics_result(logs)
        return merged_logs(logs, self.get_metrics_result())

    def _hold_bridges(self) -> None:
        # tf_keras trains and saves TensorFlow's variables, and does not see layers of Keras 3.
        self._bridge_variables = [weight.value for weight in self._objective.bridge_weights]

    def _mean_of_keras(self) -> type:
        return tf_keras.metrics.Mean

    def _set_policy(self, name: str) -> None:
        self._set_dtype_policy(name)

    def _student_loss(self, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        return label_loss(self.compiled_loss, y, y_pred, sample_weight)


class _OfStudent(tf_keras.callbacks.Callback):
    """A callback of TF-MOT that receives the student instead of the distiller around it."""

    def __init__(self, callback: tf_keras.callbacks.Callback) -> None:
        super().__init__()
        self._callback = callback

    def set_model(self, model: Any) -> None:
        self._callback.set_model(model.student)

    def on_train_begin(self, logs: Any = None) -> None:
        self._callback.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._callback.on_epoch_end(epoch, logs)


def needed_callbacks(student: tf_keras.Model) -> list[tf_keras.callbacks.Callback]:
    """The callbacks without which a student does not train as its compression needs.

    A student of `keras_kd.compression` brings them along. One that was pruned with TF-MOT itself
    needs TF-MOT's `UpdatePruningStep`; the module is loaded, since the layers are from it.
    """
    brought = getattr(student, "training_callbacks", None)
    if brought is not None:
        return list(brought())
    if any(type(layer).__name__ == "PruneLowMagnitude" for layer in student.submodules):
        tfmot = sys.modules["tensorflow_model_optimization"]
        return [_OfStudent(tfmot.sparsity.keras.UpdatePruningStep())]
    return []
