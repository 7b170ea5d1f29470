"""What a pruned student needs while it trains. Importing this imports TF-MOT."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import tf_keras

from keras_kd._checks import problem, three_parts
from keras_kd.compression.pruning._schedules import Schedule
from keras_kd.compression.pruning._wrapper import PruneLowMagnitude
from keras_kd.compression.pruning.schedule import Training


def set_callbacks(student: Any) -> None:
    """Give a student with pruned layers what makes the callbacks that it needs while it trains."""
    wrappers = [layer for layer in student.layers if isinstance(layer, PruneLowMagnitude)]
    if wrappers:
        student.training_callbacks = lambda: [PruningCallback(wrappers)]


class PruningCallback(tf_keras.callbacks.Callback):
    """Fixes open schedules when the length of the training is known, and checks what was reached.

    It is given its layers when it is made, so it also works in the training of a model that
    contains the pruned one.
    """

    def __init__(self, layers: Sequence[PruneLowMagnitude]) -> None:
        super().__init__()
        self._layers = list(layers)
        schedules = (layer.pruning_schedule for layer in self._layers)
        self._schedules = [each for each in schedules if isinstance(each, Schedule)]
        self._start: tuple[int, int] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Let steps begin whose schedule is still open."""
        self._start = None
        for schedule in self._schedules:
            schedule.has_callback = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Fix the schedules in the first epoch for which the number of steps is known."""
        if not any(schedule.is_open for schedule in self._schedules):
            return
        done = self._steps_done()
        self._start = self._start or (epoch, done)
        steps_per_epoch = self.params.get("steps")
        first_epoch, done_before = self._start
        if steps_per_epoch is None and epoch > first_epoch:
            # The number of steps of a generator is known after its first epoch.
            steps_per_epoch = (done - done_before) // (epoch - first_epoch)
        epochs = self.params["epochs"]
        if steps_per_epoch is not None:
            for schedule in self._schedules:
                schedule.fix(Training(done, epoch, epochs, steps_per_epoch))
        elif epochs - epoch == 1:
            raise problem(
                "data of unknown length for a single epoch of pruning",
                "a number of steps, from which the pruning schedule is chosen",
                "pass `steps_per_epoch` to `fit`, or a schedule with `end_step` to `prune`",
            )

    def on_train_end(self, logs: Any = None) -> None:
        """Warn if the weights are less sparse than the schedule's end."""
        dense = [layer.layer.name for layer in self._layers if layer.falls_short()]
        if dense:
            warnings.warn(
                three_parts(
                    f"a training after which the layers {dense} are less sparse than was asked for,"
                    f" {self._steps_done()} steps from the beginning",
                    f"a training up to the end of the schedule{self._end()}, by an optimizer of"
                    " tf_keras, with no callback that restores earlier weights",
                    "train longer, leave `end_step` out of the schedule, or leave out"
                    " restore_best_weights of EarlyStopping",
                ),
                stacklevel=2,
            )

    def _steps_done(self) -> int:
        return max(int(layer.pruning_step.numpy()) for layer in self._layers)

    def _end(self) -> str:
        timetables = (each.timetable for each in self._schedules)
        ends = {each.end_step for each in timetables if each is not None}
        return f" (step {max(ends)})" if ends else ""
