"""TF-MOT's pruning schedules, completed. Importing this imports TF-MOT, which takes seconds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import tensorflow as tf
import tf_keras

from keras_kd._checks import problem
from keras_kd.compression._tfmot import tfmot
from keras_kd.compression.pruning.schedule import (
    ConstantSchedule,
    Plan,
    PolynomialSchedule,
    Timetable,
    Training,
)

_sparsity = tfmot.sparsity.keras
_NEVER = tf.int64.max
_PACKAGE = "keras_kd"


@tf_keras.saving.register_keras_serializable(_PACKAGE)
class Schedule(tf.__internal__.tracking.AutoTrackable, _sparsity.PruningSchedule):
    """Polynomial decay (Zhu & Gupta, 2018) whose steps may be filled in when training begins.

    The steps are variables: a training function that is already traced must see them, and a
    checkpoint of the training restores them. With two equal sparsities it is constant.
    """

    def __init__(
        self, initial_sparsity: float, final_sparsity: float, power: float, plan: Plan
    ) -> None:
        self.initial_sparsity = initial_sparsity
        self.final_sparsity = final_sparsity
        self.power = power
        self.plan = plan
        self.has_callback = False
        self._begin, self._end, self._frequency = (
            tf.Variable(tf.constant(value, tf.int64), trainable=False)
            for value in (_NEVER, _NEVER, 1)
        )
        known = plan.fixed
        if known is not None:
            self._set(known)

    @property
    def is_open(self) -> bool:
        """Whether the steps are still to be chosen."""
        return int(self._end.numpy()) == _NEVER

    @property
    def timetable(self) -> Timetable | None:
        """The steps, or None as long as they are open."""
        if self.is_open:
            return None
        return Timetable(*(int(v.numpy()) for v in (self._begin, self._end, self._frequency)))

    def fix(self, training: Training) -> None:
        """Choose the steps if they are open.

        Raises:
            ValueError: if pruning would begin or end out of the training.
        """
        if self.is_open:
            self._set(self.plan.timetable(training))

    def check_ready(self) -> None:
        """Check that the steps are known, or that there is a callback that will find out.

        Raises:
            ValueError: if pruning would never begin.
        """
        with tf.init_scope():
            ready = self.has_callback or not self.is_open
        if not ready:
            raise problem(
                "a training step of a pruned student whose schedule has no end yet",
                "`fit` with the callback that chooses it from the length of the training",
                "train with `fit` of a keras_kd.Distiller or with "
                "fit(..., callbacks=pruned.training_callbacks()), or pass "
                "schedule=PolynomialSchedule(end_step=...) to `prune`",
            )

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether to update the masks at `step`, and to which sparsity."""
        step = tf.cast(step, tf.int64)
        in_range = (step > self._begin) & (step <= self._end)
        is_first = tf.equal(step, self._begin + 1)
        is_turn = tf.equal(tf.math.floormod(self._end - step, self._frequency), 0)
        span = tf.cast(tf.maximum(self._end - self._begin, 1), tf.float32)
        rest = 1.0 - tf.clip_by_value(tf.cast(step - self._begin, tf.float32) / span, 0.0, 1.0)
        change = self.initial_sparsity - self.final_sparsity
        return in_range & (is_first | is_turn), self.final_sparsity + change * rest**self.power

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the schedule of again, in the form of TF-MOT's schedules."""
        timetable = self.timetable
        plan = self.plan if timetable is None else Plan(**asdict(timetable))
        return {
            "class_name": f"{_PACKAGE}>Schedule",
            "config": {
                "initial_sparsity": self.initial_sparsity,
                "final_sparsity": self.final_sparsity,
                "power": self.power,
                "plan": asdict(plan),
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """The schedule of the inner config of `get_config`."""
        return cls(**{**config, "plan": Plan(**config["plan"])})

    def _set(self, timetable: Timetable) -> None:
        self._begin.assign(timetable.begin_step)
        self._end.assign(timetable.end_step)
        self._frequency.assign(timetable.frequency)


def of_layer(schedule: Any, sparsity: float) -> Any:
    """The schedule of one layer, which ends at `sparsity`, of the `schedule` passed to `prune`."""
    if not isinstance(schedule, PolynomialSchedule | ConstantSchedule):
        return completed(schedule)
    initial, power = schedule.curve(sparsity)
    return Schedule(initial, sparsity, power, schedule.plan)


def completed(schedule: Any) -> Any:
    """TF-MOT's own schedules as a `Schedule`, which reaches its end; others as they are.

    TF-MOT counts updates from `begin_step`, by default in every 100th step only, so that the last
    one may come long before `end_step`, or none at all in a short training.
    """
    if type(schedule) is _sparsity.PolynomialDecay:
        return Schedule(
            schedule.initial_sparsity,
            schedule.final_sparsity,
            schedule.power,
            Plan(schedule.begin_step, schedule.end_step, frequency=schedule.frequency),
        )
    if type(schedule) is _sparsity.ConstantSparsity:
        end = None if schedule.end_step < 0 else schedule.end_step
        plan = Plan(schedule.begin_step, end, frequency=schedule.frequency)
        return Schedule(schedule.target_sparsity, schedule.target_sparsity, 1, plan)
    return schedule


def to_config(schedule: Any) -> dict[str, Any]:
    """The config of a schedule, for both forms of `get_config` in use."""
    config = schedule.get_config()
    has_class = isinstance(config, dict) and set(config) == {"class_name", "config"}
    registered = tf_keras.saving.get_registered_name(type(schedule))
    return {"class_name": registered, "config": config["config"] if has_class else config}


def from_config(config: dict[str, Any]) -> Any:
    """The schedule of `to_config`.

    Raises:
        ValueError: if its class is not known.
    """
    name = config["class_name"]
    kind = tf_keras.saving.get_registered_object(name) or getattr(_sparsity, name, None)
    if kind is None:
        raise problem(
            f"a file with the pruning schedule {name!r}",
            "a class that is known where the file is loaded",
            "decorate the class with @tf_keras.saving.register_keras_serializable(), or load"
            f" within tf_keras.saving.custom_object_scope({{{name!r}: ...}})",
        )
    return kind.from_config(config["config"])
