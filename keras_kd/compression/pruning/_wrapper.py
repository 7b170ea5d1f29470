"""TF-MOT's pruning classes, completed. Importing this imports TF-MOT, which takes seconds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._checks import problem
from keras_kd.compression._tfmot import pruning_wrapper, tfmot
from keras_kd.compression.bridge.translation import LayerRecord, record_of, weight_name
from keras_kd.compression.pruning.schedule import Timetable

_sparsity = tfmot.sparsity.keras


class PruneLowMagnitude(pruning_wrapper.PruneLowMagnitude):
    """TF-MOT's wrapper, made to pass masks on and to compute in the precision of its layer.

    It keeps the name of its base, so that a saved model loads within `tfmot.prune_scope()`.
    """

    def __init__(self, layer: Any, **options: Any) -> None:
        super().__init__(layer, **{"dtype": layer.dtype_policy, **options})
        self.supports_masking = layer.supports_masking
        if self._call_spec.expects_mask_arg != layer._call_spec.expects_mask_arg:
            self._call_spec.expects_mask_arg = layer._call_spec.expects_mask_arg

    def call(self, inputs: Any, training: Any = None, **options: Any) -> Any:
        """The wrapped layer's outputs; a training step moves the schedule on.

        Raises:
            ValueError: if a training step cannot know how long the training is.
        """
        if training is True and isinstance(self.pruning_schedule, Schedule):
            self.pruning_schedule.check_ready()
        return super().call(inputs, training=training, **options)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask that the wrapped layer computes."""
        return self.layer.compute_mask(inputs, mask)


def dismantle(layer: Any) -> Sequence[LayerRecord] | None:
    """The layer inside a pruning wrapper, its masked weights zero; None for any other layer."""
    if not isinstance(layer, pruning_wrapper.PruneLowMagnitude):
        return None
    record = record_of(layer.layer)
    masked = {
        weight_name(weight): np.where(mask.numpy() == 0, 0, weight.numpy()).astype(
            weight.dtype.name
        )
        for weight, mask, _ in layer.pruning_vars
    }
    return [replace(record, weights={**record.weights, **masked})]


class Schedule(tf.__internal__.tracking.AutoTrackable, _sparsity.PruningSchedule):
    """Polynomial decay (Zhu & Gupta, 2017) whose steps may be filled in when training begins.

    The steps are variables, since a training function that is already traced must see them.
    It serializes as TF-MOT's `PolynomialDecay` with the steps it has by then.
    """

    def __init__(
        self, initial_sparsity: float, final_sparsity: float, timetable: Timetable
    ) -> None:
        self.initial_sparsity = initial_sparsity
        self.final_sparsity = final_sparsity
        self.timetable = timetable
        self.has_callback = False
        never = tf.int64.max
        self._begin, self._end, self._frequency = (
            tf.Variable(value, trainable=False, dtype=tf.int64) for value in (never, never, 1)
        )
        if timetable.is_known:
            self.fix(timetable)

    def fix(self, timetable: Timetable) -> None:
        """Set the steps."""
        self.timetable = timetable
        self._begin.assign(timetable.begin_step)
        self._end.assign(timetable.end_step)
        self._frequency.assign(timetable.frequency)

    def check_ready(self) -> None:
        """Check that the steps are known, or that there is a callback that will find out.

        Raises:
            ValueError: if pruning would never begin.
        """
        if not (self.timetable.is_known or self.has_callback):
            raise ValueError(
                problem(
                    "a training step of a pruned student whose schedule is open",
                    "`fit` with the callback that chooses it from the length of the training",
                    "train with `fit` of a keras_kd.Distiller or with "
                    "fit(..., callbacks=pruned.training_callbacks()), or pass end_step to prune",
                )
            )

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether to update the masks at `step`, and to which sparsity."""
        step = tf.cast(step, tf.int64)
        due = self._should_prune_in_step(step, self._begin, self._end, self._frequency)
        span = tf.cast(tf.maximum(self._end - self._begin, 1), tf.float32)
        rest = 1.0 - tf.clip_by_value(tf.cast(step - self._begin, tf.float32) / span, 0.0, 1.0)
        change = self.initial_sparsity - self.final_sparsity
        return due, self.final_sparsity + change * rest**3

    def get_config(self) -> dict[str, Any]:
        """The configuration of the `PolynomialDecay` with the same sparsities."""
        return {
            "class_name": "PolynomialDecay",
            "config": {
                "initial_sparsity": self.initial_sparsity,
                "final_sparsity": self.final_sparsity,
                "begin_step": self.timetable.begin_step,
                "end_step": self.timetable.end_step or self.timetable.begin_step + 1,
                "power": 3,
                "frequency": self.timetable.frequency or 1,
            },
        }


class PruningCallback(_sparsity.UpdatePruningStep):
    """TF-MOT's `UpdatePruningStep` that fixes the schedule and checks what was reached.

    It knows its layers from the beginning, so it also works in the training of a model that holds
    the pruned one.
    """

    def __init__(self, layers: Sequence[PruneLowMagnitude], schedule: Schedule) -> None:
        super().__init__()
        self._layers = list(layers)
        self._schedule = schedule

    def on_train_begin(self, logs: Any = None) -> None:
        """Start counting steps."""
        self.prunable_layers = self._layers
        self._schedule.has_callback = True
        if self._step() < 0:
            for layer in self._layers:
                layer.pruning_step.assign(0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Fix the schedule in the first epoch for which the number of steps is known."""
        if self._schedule.timetable.is_known:
            return
        done = self._step()
        epochs = self.params["epochs"] - epoch
        # The number of steps of a generator is known after its first epoch.
        steps_per_epoch = self.params.get("steps") or (done if epoch else None)
        if steps_per_epoch is None and epochs > 1:
            return
        if steps_per_epoch is None:
            raise ValueError(
                problem(
                    "data of unknown length for a single epoch of pruning",
                    "a number of steps, from which the pruning schedule is chosen",
                    "pass `steps_per_epoch` to `fit` or `end_step` to `prune`",
                )
            )
        self._schedule.fix(self._schedule.timetable.within(done + steps_per_epoch * epochs))

    def on_train_end(self, logs: Any = None) -> None:
        """Warn if the weights are not as sparse as was asked for."""
        dense = [layer.layer.name for layer in self._layers if self._falls_short(layer)]
        if dense:
            warnings.warn(
                problem(
                    f"a training of {self._step()} steps after which the layers {dense} are less"
                    f" sparse than {self._schedule.final_sparsity}",
                    f"{self._schedule.timetable.end_step} steps and weights that differ from one"
                    " another, with no callback that restores earlier ones",
                    "train longer, call `prune` without `end_step`, or take EarlyStopping's"
                    " restore_best_weights out",
                ),
                stacklevel=2,
            )

    def _falls_short(self, layer: PruneLowMagnitude) -> bool:
        # One weight of rounding; blocks at the edge of a kernel may be cut.
        return any(
            np.mean(weight.numpy() == 0)
            < self._schedule.final_sparsity - np.prod(layer.block_size) / weight.numpy().size
            for weight, _, _ in layer.pruning_vars
        )

    def _step(self) -> int:
        return int(self._layers[0].pruning_step.numpy())
