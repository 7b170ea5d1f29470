"""Optimizers, losses, metrics and callbacks of Keras 3, for the training of a tf_keras model.

Imported only where a student is a tf_keras model. What is not of Keras 3 (a function, an object of
tf_keras, a name in tf_keras) is passed on unchanged.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import keras
import tf_keras

from keras_kd._backends import traced_once
from keras_kd._checks import problem
from keras_kd._fitting import FitTaken, call_fit
from keras_kd._keras import Untracked
from keras_kd._optimizers import settings_of

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
    product of its momentum schedule wrongly. With `use_ema`, the averages begin with the initial
    weights, in Keras 3 with those after the first step.

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
    # A subclass with its own step has no counterpart, even under a known name.
    is_keras_own = getattr(keras.optimizers, name, None) is type(optimizer)
    config = settings_of(optimizer) if is_keras_own else {}
    unknown = [key for key, off in _ONLY_IN_KERAS_3.items() if config.pop(key, off) is not off]
    counterpart = getattr(tf_keras.optimizers, name, None)
    if not is_keras_own or counterpart is None or unknown:
        raise problem(
            f"optimizer {name} of Keras 3"
            + (f" with {', '.join(unknown)}" if unknown else "")
            + " for a tf_keras student",
            "an optimizer that tf_keras has as well",
            "use for example keras.optimizers.Adam, or pass an object of tf_keras.optimizers",
        )
    config["learning_rate"] = _translate_learning_rate(optimizer._learning_rate)
    # The averages of weights are only here another number by default: in RMSprop of tf_keras.
    kept = {key: value for key, value in config.items() if value is not None}
    return counterpart.from_config(
        {**kept, "ema_overwrite_frequency": config.get("ema_overwrite_frequency")}
    )


def translate_loss(loss: Any) -> Any:
    """A tf_keras loss that computes what a Keras 3 loss computes."""
    loss = _named(loss, "losses")
    return KerasLoss(loss) if isinstance(loss, keras.losses.Loss) else loss


def translate_metric(metric: Any) -> Any:
    """A tf_keras metric that measures what a Keras 3 metric measures."""
    if metric not in _CHOSEN_BY_KERAS:
        metric = _named(metric, "metrics")
    return KerasMetric(metric) if isinstance(metric, keras.metrics.Metric) else metric


# Names for which tf_keras looks at the outputs.
_CHOSEN_BY_KERAS = ("accuracy", "acc", "crossentropy", "ce")


def _named(item: Any, kind: str) -> Any:
    """The object of Keras 3 for a name that tf_keras does not have; anything else unchanged."""
    if not isinstance(item, str):
        return item
    # For an unknown name one of the two raises, the other returns it.
    for kit in (tf_keras, keras):
        with suppress(ValueError):
            found = getattr(kit, kind).get(item)
            if callable(found):
                return item if kit is tf_keras else found
    return item


def translate_callback(callback: Any) -> Any:
    """A tf_keras callback that does what a Keras 3 callback does.

    Raises:
        ValueError: if it works with the state of Keras 3 optimizers.
    """
    if not isinstance(callback, keras.callbacks.Callback):
        return callback
    kind = type(callback)
    if kind is keras.callbacks.BackupAndRestore:
        # Keras 3's own looks into the optimizer for what only its own optimizers have.
        return _BackupAndRestore(
            callback.backup_dir, callback.save_freq, callback.delete_checkpoint
        )
    if kind is keras.callbacks.ProgbarLogger:
        # tf_keras would add another one.
        return tf_keras.callbacks.ProgbarLogger()
    for name, instead in _WITHOUT_COUNTERPART.items():
        refused = getattr(keras.callbacks, name, None)
        if refused is not None and isinstance(callback, refused):
            raise problem(
                f"the callback {kind.__name__}, a kind of keras.callbacks.{name}, for a "
                "tf_keras student",
                "a callback that does not read or write the state of Keras 3 optimizers",
                f"use {instead} instead",
            )
    return KerasCallback(callback)


_WITHOUT_COUNTERPART = {
    "BackupAndRestore": "keras.callbacks.BackupAndRestore itself, or derive your class from "
    "tf_keras.callbacks.BackupAndRestore",
    "OrbaxCheckpoint": "keras.callbacks.ModelCheckpoint or keras.callbacks.BackupAndRestore",
}


def translate_callbacks(callbacks: Any) -> Any:
    """The callbacks of `fit`, in any form that Keras takes, as tf_keras takes them."""
    if isinstance(callbacks, tf_keras.callbacks.CallbackList):
        # `fit` passes its own list to `evaluate`, translated already.
        return callbacks
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    listed = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    return [translate_callback(callback) for callback in listed if callback is not None]


def translate_data(data: Any) -> Any:
    """What tf_keras reads as it reads a `keras.utils.PyDataset`."""
    return KerasDataset(data) if isinstance(data, keras.utils.PyDataset) else data


_OfModel = tf_keras.Model if TYPE_CHECKING else object


class TakesKeras3(FitTaken, _OfModel):
    """For a class that is a tf_keras model as well: training by the objects of either Keras."""

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        **options: Any,
    ) -> None:
        """Configure training; see `tf_keras.Model.compile`.

        Raises:
            ValueError: if tf_keras has no counterpart to an optimizer or loss of Keras 3.
        """
        # What Keras 3 has for "as you do".
        if options.get("jit_compile") == "auto":
            options.pop("jit_compile")
        if options.get("auto_scale_loss") is True:
            options.pop("auto_scale_loss")
        super().compile(
            optimizer=translate_optimizer(optimizer),
            loss=translate_structure(loss, translate_loss),
            metrics=translate_structure(metrics, translate_metric),
            loss_weights=loss_weights,
            weighted_metrics=translate_structure(weighted_metrics, translate_metric),
            **options,
        )

    def make_train_function(self, force: bool = False) -> Any:
        """A training step; see `tf_keras.Model.make_train_function`."""
        if self.train_function is None or force:
            self.train_function = traced_once(super().make_train_function(force))
        return self.train_function

    def fit(self, *args: Any, **kwargs: Any) -> tf_keras.callbacks.History:
        """Train; see `tf_keras.Model.fit`."""
        bound = _translated_arguments(tf_keras.Model.fit, self, args, kwargs)
        needed = self._needed_callbacks()
        if needed:
            bound.arguments["callbacks"] = [*bound.arguments.get("callbacks", ()), *needed]
        return call_fit(self, super().fit, _without_self(bound))

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; see `tf_keras.Model.evaluate`."""
        bound = _translated_arguments(tf_keras.Model.evaluate, self, args, kwargs)
        return super().evaluate(*bound.args[1:], **bound.kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Outputs as arrays; see `tf_keras.Model.predict`."""
        bound = _translated_arguments(tf_keras.Model.predict, self, args, kwargs)
        return super().predict(*bound.args[1:], **bound.kwargs)

    def _needed_callbacks(self) -> Sequence[tf_keras.callbacks.Callback]:
        """Callbacks that `fit` adds to the user's."""
        return ()


def take_keras_3(model: Any) -> Any:
    """Let a tf_keras model train by the objects of either Keras; the model is returned.

    Its class gets a base more but keeps its name and module, so that files of the model are read
    without this package where they were before.
    """
    own = type(model)
    if not issubclass(own, TakesKeras3):
        names = {"__module__": own.__module__, "__doc__": own.__doc__}
        object.__setattr__(model, "__class__", type(own.__name__, (TakesKeras3, own), names))
    return model


def _translated_arguments(
    method: Any, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    bound = inspect.signature(method).bind(model, *args, **kwargs)
    for name, value in bound.arguments.items():
        is_list = name == "callbacks"
        bound.arguments[name] = translate_callbacks(value) if is_list else translate_data(value)
    return bound


def _without_self(bound: inspect.BoundArguments) -> dict[str, Any]:
    return {name: value for name, value in bound.arguments.items() if name != "self"}


@tf_keras.saving.register_keras_serializable("keras_kd")
class KerasLoss(tf_keras.losses.Loss):
    """A Keras 3 loss: its values per example, reduced by tf_keras in the same way.

    Raises:
        ValueError: if tf_keras has no such reduction.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        if loss.reduction not in _REDUCTIONS:
            raise problem(
                f"loss {loss.name!r} with reduction={loss.reduction!r} for a tf_keras student",
                "one of 'sum_over_batch_size', 'sum', 'none'",
                "build the loss with one of these reductions",
            )
        super().__init__(reduction=_REDUCTIONS[loss.reduction], name=loss.name)
        self._loss = loss

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Values per example."""
        # In the precision in which Keras 3 would pass them.
        dtype = self._loss.dtype
        return self._loss.call(
            keras.ops.convert_to_tensor(y_true, dtype), keras.ops.convert_to_tensor(y_pred, dtype)
        )

    def get_config(self) -> dict[str, Any]:
        """The Keras 3 loss, serialized."""
        return {"loss": keras.saving.serialize_keras_object(self._loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasLoss:
        """Rebuild the loss from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["loss"]))


@tf_keras.saving.register_keras_serializable("keras_kd")
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
    """A Keras 3 callback, which receives all events of the tf_keras model.

    Its `model` is the tf_keras model itself.
    """

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        super().__init__()
        self._callback = callback

    def set_params(self, params: Any) -> None:
        """Pass on."""
        super().set_params(params)
        self._callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Pass on."""
        super().set_model(model)
        _name_weights(model)
        swaps = isinstance(self._callback, keras.callbacks.SwapEMAWeights)
        self._callback.set_model(_Averaged(model) if swaps else model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Pass on, with what Keras 3 would have found in its own metrics and optimizer."""
        _name_weights(self.model)
        _set_mode(self._callback, self.model)
        if isinstance(self._callback, keras.callbacks.TensorBoard):
            rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
            logs = {**(logs or {}), "learning_rate": float(rate)}
        self._callback.on_epoch_end(epoch, logs)


def _handed_on(hook: str) -> Callable[..., None]:
    def method(self: KerasCallback, *args: Any, **kwargs: Any) -> None:
        getattr(self._callback, hook)(*args, **kwargs)

    method.__name__ = hook
    return method


_MOMENTS = ("train", "test", "predict")
for _hook in (
    "on_epoch_begin",
    *(f"on_{moment}_{edge}" for moment in _MOMENTS for edge in ("begin", "end")),
    *(f"on_{moment}_batch_{edge}" for moment in _MOMENTS for edge in ("begin", "end")),
):
    setattr(KerasCallback, _hook, _handed_on(_hook))


def _name_weights(model: Any) -> None:
    """Give the weights the `path` that those of Keras 3 have."""
    for weight in model.weights:
        if not hasattr(weight, "path"):
            weight.path = weight.name.split(":")[0]


def _set_mode(callback: Any, model: Any) -> None:
    """Whether a monitored metric of tf_keras is to rise; Keras 3 reads it from its own metrics."""
    if getattr(callback, "mode", None) != "auto" or not hasattr(callback, "monitor"):
        return
    name = callback.monitor.removeprefix("val_")
    for metric in model.metrics:
        direction = _direction(metric) if metric.name == name else None
        if direction is not None:
            callback.mode = {"up": "max", "down": "min"}[direction]


def _direction(metric: tf_keras.metrics.Metric) -> str | None:
    """ "up" or "down", for where a metric is better; `None` where that is unknown."""
    if isinstance(metric, KerasMetric):
        return getattr(metric._metric.value, "_direction", None)
    is_function = type(metric).__name__ == "MeanMetricWrapper"
    kind = getattr(metric._fn, "__name__", "") if is_function else type(metric).__name__
    try:
        return getattr(keras.metrics.get(kind), "_direction", None)
    except (TypeError, ValueError):
        # Keras 3 has none of this name, or it cannot be built without arguments.
        return None


class _Averaged:
    """A tf_keras model to `SwapEMAWeights`: the weights, and the optimizer's averages of them."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def optimizer(self) -> SimpleNamespace:
        """What the callback reads of a Keras 3 optimizer."""
        optimizer = self._model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        found = SimpleNamespace(use_ema=getattr(optimizer, "use_ema", False))
        averages = getattr(optimizer, "_model_variables_moving_average", None)
        if averages is not None:
            found._trainable_variables = self._model.trainable_variables
            found._model_variables_moving_average = averages
            found._distribution_strategy = optimizer._distribution_strategy
        return found


class _BackupAndRestore(tf_keras.callbacks.BackupAndRestore):
    """After which a model can be trained again without it, as in Keras 3."""

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        # tf_keras deletes what its next `fit` looks for, and leaves an empty directory.
        self.model._training_state = None
        if self.delete_checkpoint:
            shutil.rmtree(self.backup_dir, ignore_errors=True)


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
        """Pass on, and begin the next epoch, for which tf_keras has no event."""
        self._dataset.on_epoch_end()
        self._dataset.on_epoch_begin()


@tf_keras.saving.register_keras_serializable("keras_kd")
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
