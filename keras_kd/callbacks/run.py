"""One call of `fit` that begins at a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_kd import _backends, _keras
from keras_kd._checks import problem
from keras_kd._fitting import is_fit_taken_by, listed, own
from keras_kd.callbacks.batches import Batches, batches_of
from keras_kd.callbacks.checkpoints import Checkpoint, Checkpoints
from keras_kd.callbacks.identity import identity_of
from keras_kd.callbacks.snapshot import Snapshot
from keras_kd.callbacks.workers import begin_together, number_of_workers

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_kd.callbacks.resume_training import ResumeTraining


class Run:
    """Changes the arguments of a `fit`, restores its state and saves it.

    Args:
        callback: whose frequency counts.
        checkpoints: of this process.
        model: that is trained.
        given: the arguments of `fit` by name.

    Attributes:
        arguments: those to call `fit` with.

    Raises:
        TypeError: if the data can be read once only.
        ValueError: if the data cannot be resumed, or the directory holds another training.
    """

    def __init__(
        self,
        callback: ResumeTraining,
        checkpoints: Checkpoints,
        model: Any,
        given: Mapping[str, Any],
    ) -> None:
        self._checkpoints = checkpoints
        self._save_freq = callback.save_freq
        self._model = model
        given = _split(given)
        self._batches, self._steps = batches, steps = _data_of(given)
        self._strategy = model.distribute_strategy
        with self._strategy.scope():
            _build(model, batches)
        self._identity = identity_of(model, given, batches.identity)
        found, self._seed, self._run = self._newest()
        epochs = given.get("epochs", 1)
        self._is_fresh = found is None
        self._first, self._skipped, self._epoch_start = 0, 0, 0
        if found is not None:
            self._seed, self._run, self._first = found.seed, found.run, found.epoch
            self._skipped, self._epoch_start = found.step, found.epoch_start
            if found.state["stopped"]:
                epochs = self._first
            elif self._first > epochs:
                raise problem(
                    f"epochs={epochs} for a training of which {self._first} epochs are done",
                    "as many epochs or more",
                    "pass another directory to begin anew, or more epochs",
                )
        self._found = found
        self._done, self._epoch = self._skipped, self._first
        self.is_skipping = False
        self._step: Callable[[Any], Any] | None = None
        callbacks = self._ordered(given.get("callbacks"), callback)
        self._snapshot = Snapshot(model, callbacks[:-1])
        self.arguments = {
            **given,
            "x": self._shared(batches.dataset(self._epoch_start + self._skipped, self._seed)),
            "shuffle": False,
            "steps_per_epoch": steps,
            "initial_epoch": self._first,
            "epochs": epochs,
            "callbacks": self._list(callbacks, epochs, given.get("verbose", "auto")),
        }
        for name in ("y", "sample_weight", "batch_size", "validation_split"):
            self.arguments.pop(name, None)
        if isinstance(given.get("validation_data"), tuple | list):
            size = given.get("validation_batch_size") or given.get("batch_size")
            self.arguments["validation_batch_size"] = size

    def _newest(self) -> tuple[Checkpoint | None, int, int]:
        """The checkpoint to begin with, and the seed and the run of a training that has none."""
        seed = _keras.random_seed()
        drawn = int(np.random.SeedSequence().generate_state(1)[0])
        seed = drawn if seed is None else seed
        found = self._checkpoints.readable(self._identity)
        if number_of_workers(self._strategy) == 1:
            return next(found, None), seed, 0
        checkpoint, seed, run = begin_together(self._strategy, lambda: list(found), seed)
        if checkpoint is not None:
            self._checkpoints.remove_after(checkpoint.number)
        return checkpoint, seed, run

    def _shared(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """A dataset of which each worker reads all batches and keeps its part of each."""
        import tensorflow as tf

        if number_of_workers(self._strategy) == 1:
            return dataset
        policy = tf.data.experimental.AutoShardPolicy
        given = dataset.options().experimental_distribute.auto_shard_policy
        if given not in (policy.AUTO, policy.DATA):
            raise problem(
                f"a tf.data.Dataset with auto_shard_policy {given.name} for ResumeTraining on "
                "several workers",
                "batches of all workers, whose numbers are those of the steps",
                "set auto_shard_policy to tf.data.experimental.AutoShardPolicy.DATA",
            )
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = policy.DATA
        return dataset.with_options(options)

    def building(self) -> AbstractContextManager[None]:
        """Keep Keras from reading a batch of the training to find its shapes meanwhile.

        Pipelines that shuffle count how often they are read.
        """
        return _keras.building_from(self._model, lambda: next(iter(self._batches.sample())))

    def _ordered(self, callbacks: Any, callback: Any) -> list[Any]:
        """The user's callbacks, the history, then this one: it saves what the others changed."""
        given = listed(callbacks)
        kit = keras if _keras.is_keras_model(self._model) else _keras.tf_keras()
        others = [item for item in given if not is_fit_taken_by(item)]
        if not any(isinstance(item, kit.callbacks.History) for item in others):
            others.append(kit.callbacks.History())
        return [*others, next(item for item in given if own(item) is callback)]

    def _list(self, callbacks: list[Any], epochs: int, verbose: Any) -> Any:
        """The callbacks in a list that keeps steps from them that were done before."""
        kit: Any = keras if _keras.is_keras_model(self._model) else _keras.tf_keras()
        run = self

        class Resumed(kit.callbacks.CallbackList):  # type: ignore[name-defined]
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                if not run.skips(batch):
                    super().on_train_batch_begin(batch, logs)

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if not run.is_skipping:
                    super().on_train_batch_end(batch, logs)

        return Resumed(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=self._model,
            verbose=1 if verbose == "auto" else verbose,
            epochs=epochs,
            steps=self._steps,
        )

    def begin(self) -> None:
        """Restore the state, or save the first one."""
        if self._is_fresh:
            self._save(0, 0)
        else:
            self._restore(metrics=False)

    def begin_epoch(self, epoch: int) -> None:
        """Leave out the steps of an epoch that are done."""
        self._epoch = epoch
        if not self._skipped or epoch != self._first:
            self._skipped = self._done = 0
            return
        model = self._model
        self._step = step = model.train_function
        model.train_function = lambda iterator: {} if self.is_skipping else step(iterator)

    def skips(self, batch: int) -> bool:
        """Whether a step is done already; before the first that is not, restore the state."""
        self.is_skipping = batch < self._skipped
        if self._step is not None and not self.is_skipping:
            # What is made in the first step only, as the variables of metrics, has to be there.
            sample = self._shared(self._batches.sample().repeat())
            self._step(iter(self._strategy.experimental_distribute_dataset(sample)))
            self._restore(metrics=True)
            self.close()
        return self.is_skipping

    def close(self) -> None:
        """Give the model its own step back, also if the training was interrupted."""
        if self._step is not None:
            self._model.train_function, self._step = self._step, None

    def end_batch(self, batch: int) -> None:
        """Count a step, and save if it is time to."""
        before, self._done = self._epoch_start + self._done, batch + 1
        now = self._epoch_start + self._done
        if self._save_freq == "epoch" or self._done >= self._steps or self._model.stop_training:
            return
        if now // int(self._save_freq) > before // int(self._save_freq):
            self._save(self._epoch, self._done)

    def end_epoch(self, epoch: int) -> None:
        """Save."""
        self._epoch_start += self._done
        self._done = 0
        self._save(epoch + 1, 0)

    def _save(self, epoch: int, step: int) -> None:
        state, arrays = self._snapshot.take()
        self._checkpoints.save(
            Checkpoint(epoch, step, self._epoch_start, self._seed, self._run, state, arrays),
            self._identity,
        )

    def _restore(self, *, metrics: bool) -> None:
        found = self._found
        assert found is not None
        self._snapshot.restore(found.state, found.arrays, metrics=metrics)


def check(model: Any, given: Mapping[str, Any]) -> None:
    """Raise an error for a training that cannot be resumed.

    Args:
        model: that is trained.
        given: the arguments of `fit` by name.

    Raises:
        ValueError: if the arguments or the model cannot be resumed.
    """
    if not _backends.is_tensorflow():
        raise problem(
            f"the Keras backend {keras.backend.backend()!r} for ResumeTraining",
            "TensorFlow, where it can restore all that a training changes",
            "use keras.callbacks.BackupAndRestore, which resumes at the last epoch",
        )
    optimizer = getattr(model, "optimizer", None)
    if not hasattr(optimizer, "build"):
        raise problem(
            f"a model {model.name!r} with the optimizer {type(optimizer).__name__}",
            "a compiled model, with an optimizer whose state can be made before the first step",
            "call compile with an optimizer of keras.optimizers first",
        )
    if given.get("initial_epoch"):
        raise problem(
            f"initial_epoch={given['initial_epoch']} with ResumeTraining",
            "a training from its beginning: the checkpoint has the epoch",
            "leave out initial_epoch",
        )
    _check_strategy(model)
    # A variable in tf_keras, which has no public name for it.
    name = "" if _keras.is_keras_model(model) else "_"
    several = int(keras.ops.convert_to_numpy(getattr(model, f"{name}steps_per_execution")))
    if several > 1:
        raise problem(
            f"steps_per_execution={several} with ResumeTraining",
            "one step in a call, so that a training can begin at any step",
            "leave out steps_per_execution in compile",
        )
    callbacks = [own(item) for item in listed(given.get("callbacks"))]
    names = [type(item).__name__ for item in callbacks]
    twice = [name for name in names if "BackupAndRestore" in name]
    twice += names[: 1 if sum(is_fit_taken_by(item) for item in callbacks) > 1 else 0]
    if twice:
        raise problem(
            f"the callbacks {', '.join(names)}",
            "one callback that resumes the training",
            "leave out all of them but one ResumeTraining",
        )


def can_resume(model: Any, given: Mapping[str, Any]) -> bool:
    """Whether ResumeTraining can be added to a training.

    It cannot with data that are read once only or come in another order after a restart, with
    `steps_per_execution`, with another callback that resumes, and on other backends than
    TensorFlow. A `tf.data.Dataset` is read once for it.

    Args:
        model: that is trained.
        given: the arguments of `fit` by name.
    """
    try:
        check(model, given)
        _data_of(_split(given))
    except (TypeError, ValueError):
        return False
    return True


def _data_of(given: Mapping[str, Any]) -> tuple[Batches, int]:
    """The data of `fit` by number, and how many batches are an epoch."""
    x, y, sample_weight = (given.get(name) for name in ("x", "y", "sample_weight"))
    batch_size, shuffle = given.get("batch_size"), given.get("shuffle", True)
    batches = batches_of(x, y, sample_weight, batch_size, shuffle)
    steps = given.get("steps_per_epoch") or batches.per_epoch
    if steps is None:
        raise problem(
            "data without an end, and no steps_per_epoch",
            "the number of steps in an epoch",
            "pass steps_per_epoch=...",
        )
    return batches, steps


def _check_strategy(model: Any) -> None:
    import tensorflow as tf

    from keras_kd.distiller.strategies import check_strategy

    strategy = model.distribute_strategy
    if hasattr(model, "student"):
        check_strategy(model)
    elif strategy.num_replicas_in_sync > 1 and type(strategy) is not tf.distribute.MirroredStrategy:
        raise problem(
            f"a model {model.name!r} without a teacher for ResumeTraining under "
            f"{type(strategy).__name__}",
            "a Distiller, or a model on the devices of one process",
            "use tf.distribute.MirroredStrategy, or train a Distiller",
        )


def _split(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the last part of the arrays as validation data, as Keras splits them."""
    share = given.get("validation_split") or 0.0
    if not share or given.get("validation_data") is not None:
        return dict(given)
    parts = [given.get(name) for name in ("x", "y", "sample_weight")]
    flat = [part for part in keras.tree.flatten(parts) if part is not None]
    if not all(hasattr(part, "shape") for part in flat):
        raise problem(
            f"validation_split={share} for data of type {type(given.get('x')).__name__}",
            "arrays, which can be split",
            "pass validation_data=... instead",
        )
    end = math.floor(len(flat[0]) * (1.0 - share))

    def cut(places: slice) -> list[Any]:
        return [
            keras.tree.map_structure(
                lambda part: None if part is None else np.asarray(part)[places], part
            )
            for part in parts
        ]

    x, y, sample_weight = cut(slice(0, end))
    validation = tuple(cut(slice(end, None)))
    while validation[-1] is None:
        validation = validation[:-1]
    return {
        **given,
        "x": x,
        "y": y,
        "sample_weight": sample_weight,
        "validation_data": validation,
    }


def _build(model: Any, batches: Any) -> None:
    """Make all weights, the state of the optimizer, and random generators that can be saved."""
    if not model.built or not model.weights:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(next(iter(batches.sample())))
        if hasattr(model, "student"):
            model.build(keras.tree.map_structure(lambda part: tuple(part.shape), x))
        else:
            model(x)
    student = getattr(model, "student", model)
    if not _keras.is_keras_model(student) and _keras.keep_random_states(student):
        model.train_function = None
    model.optimizer.build(model.trainable_variables)
