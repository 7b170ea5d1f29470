"""The files of a pipeline: finished steps, and the training of the current step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_kd._archives import check_members
from keras_kd._checks import problem
from keras_kd._files import replacing
from keras_kd._json import json_value
from keras_kd._state_files import StateFiles, digest_of, directory_of
from keras_kd.callbacks.snapshot import random_arrays, restore_random
from keras_kd.compression.steps.result import Stage
from keras_kd.compression.steps.step import Step

_MANIFEST = "pipeline.json"
_RANDOM = "_random.npz"
_TRAINING = "training"


class Checkpoint:
    """The finished steps of one pipeline, in a directory.

    Each step leaves its plain student as `.keras`, what it trained as `.npz` and the state of the
    random generators; `pipeline.json`, written last, lists those that are complete. In a run that
    is resumed the next step then begins as in one that was not interrupted.

    Args:
        directory: where; None keeps nothing.
        start: the student before the first step, a plain Keras 3 model.
        steps: the steps of the pipeline.

    Raises:
        ValueError: if the directory holds a pipeline of another student, or is damaged.
    """

    def __init__(
        self, directory: str | Path | None, start: keras.Model, steps: Sequence[Step]
    ) -> None:
        self._files = None if directory is None else StateFiles(directory, "a pipeline")
        self._start = start
        self._steps = [step.described() for step in steps]
        self._stages: list[dict[str, Any]] = []
        # How many the manifest names: more where it is of other steps.
        self._listed = 0
        if self._files is None:
            return
        self._fingerprint = digest_of(
            [keras.ops.convert_to_numpy(weight) for weight in start.weights]
        )
        self._read(self._files)

    @property
    def stages(self) -> list[Stage]:
        """What was measured at the start and after each finished step."""
        return [Stage(**stage) for stage in self._stages]

    @property
    def finished(self) -> int:
        """How many of the steps need not be done again."""
        return max(0, len(self._stages) - 1)

    def plain(self, number: int) -> keras.Model:
        """The plain student after step `number`; 0 is the start.

        Raises:
            ValueError: if its file cannot be loaded.
        """
        if number == 0:
            return self._start
        assert self._files is not None
        path = self._files.directory / self._name(number, ".keras")
        classes = {type(layer) for layer in self._start._flatten_layers()}
        own = {kind.__name__: kind for kind in classes if not kind.__module__.startswith("keras.")}
        try:
            check_members(path)
            with keras.saving.custom_object_scope(own):
                model: Any = keras.models.load_model(path, compile=False)
                return model
        except Exception as error:
            # Anything may be in a damaged file.
            raise self._files.unreadable(path, error) from error

    def restore(self, number: int, student: Any) -> None:
        """Give `student`, the compressed but untrained one of step `number`, what it had learned.

        Raises:
            ValueError: if its file cannot be read, or is of another student.
        """
        assert self._files is not None
        self._files.restore_weights(self._name(number, ".npz"), student)

    def restore_random(self, plain: keras.Model) -> None:
        """Give the random generators the state that they had after the last finished step.

        Args:
            plain: the student after that step, whose layers have some.

        Raises:
            ValueError: if its file cannot be read.
        """
        if self._files is None or not self.finished:
            return
        name = self._name(self.finished, _RANDOM)
        arrays = self._files.read_arrays(name)
        try:
            restore_random(plain, arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise self._files.unreadable(self._files.directory / name, error) from error

    def training(self) -> Path | None:
        """Where the training of the next step is kept until that step is finished."""
        if self._files is None:
            return None
        identity = [self._fingerprint, self._steps[: self.finished + 1]]
        return directory_of(self._files.directory / _TRAINING, identity)

    def remove_training(self) -> None:
        """Remove what the training of a finished step has left."""
        if self._files is not None:
            shutil.rmtree(self._files.directory / _TRAINING, ignore_errors=True)

    def save(self, plain: keras.Model | None, trained: Any, stage: Stage) -> None:
        """Keep what a step has made; `plain` is None for the start, which the caller has.

        Raises:
            OSError: if it cannot be written; the steps before it are kept.
        """
        number = len(self._stages)
        stages = [*self._stages, json_value(stage)]
        if self._files is not None:
            if self._listed > number:
                # Other steps are on the disk under this number: they are no longer complete.
                self._write_manifest(self._stages)
            if plain is not None:
                with replacing(self._files.directory / self._name(number, ".keras")) as path:
                    plain.save(path)
                self._files.write_weights(self._name(number, ".npz"), trained)
                self._files.write_arrays(self._name(number, _RANDOM), random_arrays(plain))
            self._write_manifest(stages)
        self._stages = stages

    def _write_manifest(self, stages: list[dict[str, Any]]) -> None:
        content = {
            "start": self._fingerprint,
            "steps": self._steps[: max(0, len(stages) - 1)],
            "stages": stages,
        }
        assert self._files is not None
        self._files.write_json(_MANIFEST, content)
        self._listed = len(stages)

    def _name(self, number: int, suffix: str) -> str:
        return f"{number}_{self._steps[number - 1]['kind']}{suffix}"

    def _read(self, files: StateFiles) -> None:
        content = files.read_json(_MANIFEST)
        if content is None:
            return
        try:
            start, steps, stages = content["start"], content["steps"], content["stages"]
            [Stage(**stage) for stage in stages]
        except (ValueError, KeyError, TypeError) as error:
            raise files.unreadable(files.directory / _MANIFEST, error) from error
        if start != self._fingerprint:
            raise problem(
                f"directory={str(files.directory)!r}, which holds the pipeline of another student",
                "the student with the weights with which that pipeline began, or an empty"
                " directory",
                "pass another directory, or load that student again",
            )
        common = 0
        while common < min(len(steps), len(self._steps)) and steps[common] == self._steps[common]:
            common += 1
        # Where the steps differ, what follows is done again.
        self._stages, self._listed = stages[: common + 1], len(stages)
