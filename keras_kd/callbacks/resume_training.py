"""Resumption of a training after a kill, with the result of an uninterrupted one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import keras

from keras_kd import _keras
from keras_kd._checks import check_integer, problem
from keras_kd._fitting import FitTaken, TakesFit, listed
from keras_kd.callbacks.checkpoints import Checkpoints
from keras_kd.callbacks.run import Run, check
from keras_kd.callbacks.workers import folder_of_worker, number_of_workers


class ResumeTraining(TakesFit):
    """Resumes an interrupted `fit`, with the same result to the last bit.

    Run the same program again after a crash or a kill: `fit` continues at the last checkpoint, and
    ends with the weights, the optimizer's state, the logs and the history of a run without
    interruption. A checkpoint holds the student, adapters, optimizer, metrics, random generators,
    the position in the data, and the state of the other callbacks (their attributes that are
    numbers, texts, arrays, or lists and dicts of them); not the teacher.

    The data are arrays, a `tf.data.Dataset` of known length that gives the same batches in each
    process, or a `keras.utils.PyDataset` whose batches are functions of their number. Arrays and
    batches of a PyDataset are shuffled by a seed of the checkpoint, with another order in each
    epoch. A dataset is read again up to the position.

    Under `tf.distribute` as many replicas have to take part as before. Each worker of
    `MultiWorkerMirroredStrategy` keeps its checkpoints in a directory of its own below the one
    given, and all begin with the last one that each of them has. The result is the same to the last
    bit if sums over replicas do not depend on chance, as with two replicas on CPUs; GPUs were not
    tried.

    A finished training is kept, too: the same call then returns its result at once. Delete the
    directory to begin anew. One directory belongs to one `fit`.

    Args:
        directory: where the last two checkpoints are kept; it may be missing.
        save_freq: "epoch" saves at the end of each epoch; a number saves after that many steps as
            well.

    Raises:
        BlockingIOError: in `fit`, if another training is running in the directory.
        NotADirectoryError: if `directory` is a file.
        TypeError: if `save_freq` is of another type; in `fit`, if the data can be read once only.
        ValueError: if `save_freq` is below 1; in `fit`, if the directory holds the training of
            another model, other data or other arguments, with the first differences, if the data
            would come in another order after a restart, or if steps are saved and workers have no
            checkpoint in common.

    Example:
        ```python
        resume = keras_kd.callbacks.ResumeTraining("runs/digits", save_freq=500)
        distiller.fit(x, y, epochs=20, callbacks=[resume])
        ```
        In the training of a model without a teacher: `resume.fit(model, x, y, epochs=20)`.
    """

    def __init__(self, directory: str | os.PathLike, save_freq: int | str = "epoch") -> None:
        super().__init__()
        if save_freq != "epoch":
            fix = 'pass "epoch", or a number of steps such as 500'
            check_integer("save_freq", save_freq, at_least=1, fix=fix)
        self.checkpoints = Checkpoints(directory)
        self.save_freq = save_freq
        self._run: Run | None = None

    def fit(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Train a model, as `model.fit` does, for models that are no Distiller.

        Args:
            model: a compiled model of either Keras.
            *args: those of `model.fit`.
            **kwargs: those of `model.fit`; this callback is added to the others.

        Returns:
            What `model.fit` returns.
        """
        _keras.check_model("model", model)
        kit = keras if _keras.is_keras_model(model) else _keras.tf_keras()
        arguments = dict(inspect.signature(kit.Model.fit).bind(model, *args, **kwargs).arguments)
        arguments.pop("self")
        given = [item for item in listed(arguments.get("callbacks")) if item is not self]
        arguments["callbacks"] = [*given, self]
        if kit is keras and not isinstance(model, FitTaken):
            return self.take_fit(model, model.fit, arguments)
        if kit is not keras:
            # Only now, since it imports tf_keras.
            from keras_kd._translation import take_keras_3

            take_keras_3(model)
        trained: Any = model
        return trained.fit(**arguments)

    def take_fit(self, model: Any, fit: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Train on from the newest checkpoint; a Distiller calls this in its `fit`."""
        check(model, arguments)
        checkpoints, strategy = self.checkpoints, model.distribute_strategy
        if number_of_workers(strategy) > 1:
            checkpoints = checkpoints.of_worker(folder_of_worker(strategy))
        with checkpoints.using():
            run = Run(self, checkpoints, model, arguments)
            self._run = run
            try:
                with run.building():
                    return fit(**run.arguments)
            finally:
                run.close()
                self._run = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin where the checkpoint was saved.

        Raises:
            ValueError: if the `fit` of the model does not support this callback.
        """
        if self._run is None:
            raise problem(
                f"ResumeTraining in model.fit of {type(self.model).__name__}, which gives a "
                "callback no access to the data",
                "fit of a Distiller, or a call through this callback",
                "write resume.fit(model, x, y, epochs=...) in the place of model.fit",
            )
        self._run.begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Leave out the steps that were done before."""
        if self._run is not None:
            self._run.begin_epoch(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count, and save after each `save_freq` steps."""
        if self._run is not None:
            self._run.end_batch(batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save, after all other callbacks."""
        if self._run is not None:
            self._run.end_epoch(epoch)
