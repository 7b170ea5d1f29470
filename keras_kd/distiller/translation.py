"""Optimizers, losses, metrics and callbacks of Keras 3, for the training of a tf_keras model.

Imported only where a student is a tf_keras model. What is not of Keras 3 (a string, a function, an
object of tf_keras) is handed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tf_keras

from keras_kd._checks import problem
from keras_kd._keras import Untracked
from keras_kd.distiller.optimizers import settings_of

_REDUCTIONS = {
    "sum_over_batch_size": tf_keras.losses.Reduction.SUM_OVER_BATCH_SIZE,
    "mean": tf_keras.losses.Reduction.SUM_OVER_BATCH_SIZE,
    "sum": tf_keras.losses.Reduction.SUM,
    "none": tf_keras.losses.Reduction.NONE,
    None: tf_keras.losses.Reduction.NONE,
}
# What Keras 3 optimizers can do and those of tf_keras cannot, and the value that means "do not".
_ONLY_IN_KERAS_3 = {"loss_scale_factor": None, "gradient_accumulation_steps": None}


def translate_structure(structure: Any, translate: Callable[[Any], Any]) -> Any:
    """Apply `translate` to each object in nested lists, tuples and dicts."""
    if isinstance(structure, dict):
        return {key: translate_structure(value, translate) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [translate_structure(value, translate) for value in structure]
    return translate(structure)


def translate_optimizer(optimizer: Any) -> Any:
    """The tf_keras optimizer of the same class and settings, with its own fresh state.

    It takes the same steps, but for Nadam: under `tf.function` that of tf_keras 2.21 counts the
    product of its momentum schedule wrongly.

    Raises:
        ValueError: if tf_keras has no such optimizer, or not with these settings.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = translate_optimizer(optimizer.inner_optimizer)
        return tf_keras.mixed_precision.LossScaleOptimizer(
            inner,
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
        )
    name = type(optimizer).__name__
    # A subclass with a step of its own has no counterpart, even if it bears a known name.
    is_keras_own = getattr(keras.optimizers, name, None) is type(optimizer)
    config = settings_of(optimizer) if is_keras_own else {}
    unknown = [key for key, off in _ONLY_IN_KERAS_3.items() if config.pop(key, off) is not off]
    counterpart = getattr(tf_keras.optimizers, name, None)
    if not is_keras_own or counterpart is None or unknown:
        raise ValueError(
            problem(
                f"optimizer {name} of Keras 3"
                + (f" with {', '.join(unknown)}" if unknown else "")
                + " for a tf_keras student",
                "an optimizer that tf_keras has as well",
                "use for example keras.optimizers.Adam, or pass an object of tf_keras.optimizers",
            )
        )
    config["learning_rate"] = _translate_learning_rate(optimizer._learning_rate)
    return counterpart.from_config(
        {key: value for key, value in config.items() if value is not None}
    )


def translate_loss(loss: Any) -> Any:
    """A tf_keras loss that computes what a Keras 3 loss computes."""
    return KerasLoss(loss) if isinstance(loss, keras.losses.Loss) else loss


def translate_metric(metric: Any) -> Any:
    """A tf_keras metric that measures what a Keras 3 metric measures."""
    return KerasMetric(metric) if isinstance(metric, keras.metrics.Metric) else metric


def translate_callback(callback: Any) -> Any:
    """A tf_keras callback that does what a Keras 3 callback does."""
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        # Keras 3's own looks into the optimizer for what only its own optimizers have.
        return tf_keras.callbacks.BackupAndRestore(
            callback.backup_dir, callback.save_freq, callback.delete_checkpoint
        )
    return KerasCallback(callback) if isinstance(callback, keras.callbacks.Callback) else callback


def translate_data(data: Any) -> Any:
    """What tf_keras reads as it reads a `keras.utils.PyDataset`."""
    return KerasDataset(data) if isinstance(data, keras.utils.PyDataset) else data


class KerasLoss(tf_keras.losses.Loss):
    """A Keras 3 loss: its values per example, reduced by tf_keras in the same way.

    Raises:
        ValueError: if tf_keras has no such reduction.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        if loss.reduction not in _REDUCTIONS:
            raise ValueError(
                problem(
                    f"loss {loss.name!r} with reduction={loss.reduction!r} for a tf_keras student",
                    "one of 'sum_over_batch_size', 'sum', 'none'",
                    "build the loss with one of these reductions",
                )
            )
        super().__init__(reduction=_REDUCTIONS[loss.reduction], name=loss.name)
        self._loss = loss

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Values per example."""
        return self._loss.call(
            keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred)
        )

    def get_config(self) -> dict[str, Any]:
        """The Keras 3 loss, serialized."""
        return {"loss": keras.saving.serialize_keras_object(self._loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasLoss:
        """Rebuild the loss from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["loss"]))


class KerasMetric(tf_keras.metrics.Metric):
    """A Keras 3 metric, which keeps its own state."""

    def __init__(self, metric: keras.metrics.Metric) -> None:
        super().__init__(name=metric.name, dtype=metric.dtype)
        # tf_keras resets a metric only once it has seen a batch; this one may come with a past.
        metric.reset_state()
        self._metric = Untracked(metric)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch."""
        self._metric.value.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self) -> Any:
        """The metric so far."""
        return self._metric.value.result()

    def reset_state(self) -> None:
        """Start anew."""
        self._metric.value.reset_state()

    def get_config(self) -> dict[str, Any]:
        """The Keras 3 metric, serialized."""
        return {"metric": keras.saving.serialize_keras_object(self._metric.value)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasMetric:
        """Rebuild the metric from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["metric"]))


class KerasCallback(tf_keras.callbacks.Callback):
    """A Keras 3 callback, told of everything that happens to the tf_keras model."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        super().__init__()
        self._callback = callback

    def set_params(self, params: Any) -> None:
        """Hand on."""
        super().set_params(params)
        self._callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Hand on."""
        super().set_model(model)
        self._callback.set_model(model)


def _handed_on(hook: str) -> Callable[..., None]:
    def method(self: KerasCallback, *args: Any, **kwargs: Any) -> None:
        getattr(self._callback, hook)(*args, **kwargs)

    method.__name__ = hook
    return method


_MOMENTS = ("train", "test", "predict")
for _hook in (
    "on_epoch_begin",
    "on_epoch_end",
    *(f"on_{moment}_{edge}" for moment in _MOMENTS for edge in ("begin", "end")),
    *(f"on_{moment}_batch_{edge}" for moment in _MOMENTS for edge in ("begin", "end")),
):
    setattr(KerasCallback, _hook, _handed_on(_hook))


class KerasDataset(tf_keras.utils.Sequence):
    """A Keras 3 `PyDataset`, which tf_keras calls a Sequence."""

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        self._dataset = dataset
        dataset.on_epoch_begin()

    def __len__(self) -> int:
        """The number of batches."""
        return self._dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        """A batch."""
        return self._dataset[index]

    def on_epoch_end(self) -> None:
        """Hand on, and begin the next epoch, of which tf_keras does not tell."""
        self._dataset.on_epoch_end()
        self._dataset.on_epoch_begin()


class KerasSchedule(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A Keras 3 learning-rate schedule."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule) -> None:
        self._schedule = schedule

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step."""
        return self._schedule(step)

    def get_config(self) -> dict[str, Any]:
        """The Keras 3 schedule, serialized."""
        return {"schedule": keras.saving.serialize_keras_object(self._schedule)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasSchedule:
        """Rebuild the schedule from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]))


def _translate_learning_rate(learning_rate: Any) -> Any:
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return KerasSchedule(learning_rate)
    if callable(learning_rate):
        return KerasSchedule(lambda step: learning_rate())
    return float(keras.ops.convert_to_numpy(learning_rate))
