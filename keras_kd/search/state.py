"""The state of a search in a directory, from which it resumes after an interruption."""

from __future__ import annotations

import hashlib
import inspect
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd._files import check_own
from keras_kd._state_files import StateFiles, digest_of
from keras_kd.tflite import TFLiteModel

_MANIFEST = "search.json"
_VERSION = 1


class State:
    """The finished trainings of one search.

    Each training leaves the student's weights, each finalist its file; `search.json`, replaced as a
    whole after each piece, lists those that are complete.

    Args:
        directory: where; None: a temporary one, which goes with this object.
        identity: what makes searches the same, as JSON types.
        began: when the call began, by `time.monotonic()`; None: now.

    Raises:
        NotADirectoryError: if the directory is a file.
        PermissionError: if a new search cannot write there.
        ValueError: if it holds another search, or is damaged.
    """

    def __init__(
        self, directory: str | Path | None, identity: Mapping[str, Any], began: float | None = None
    ) -> None:
        self._temporary = None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="keras_kd_search_")
            directory = self._temporary.name
        self._files = StateFiles(directory, "a search")
        self.directory = self._files.directory
        self.candidates: dict[str, dict[str, Any]] = {}
        self._identity = json.loads(json.dumps(identity))
        self._seconds_before = 0.0
        self._began = time.monotonic() if began is None else began
        self._read()

    @property
    def store(self) -> Path:
        """Where the outputs of the teacher are."""
        return self.directory / "teacher.store"

    @property
    def seconds(self) -> float:
        """How long the search has worked, in all its runs."""
        return self._seconds_before + time.monotonic() - self._began

    def entry(self, name: str) -> dict[str, Any]:
        """What is known of a candidate; changes are kept by `save`."""
        return self.candidates[name]

    def save(self) -> None:
        """Write the state."""
        content = {
            "version": _VERSION,
            "identity": self._identity,
            "seconds": self.seconds,
            "candidates": self.candidates,
        }
        self._files.write_json(_MANIFEST, content)

    def save_weights(self, name: str, piece: str, student: keras.Model) -> None:
        """Keep the weights of a student after a piece of its training."""
        self._files.write_weights(self._name(name, piece, ".npz"), student)

    def load_weights(self, name: str, piece: str, student: keras.Model) -> None:
        """Give a student the weights that were kept.

        Raises:
            ValueError: if their file cannot be read, or is of another student.
        """
        self._files.restore_weights(self._name(name, piece, ".npz"), student)

    def save_file(self, name: str, model: TFLiteModel) -> None:
        """Keep the file of a finalist."""
        model.save(self.directory / self._name(name, "final", ".tflite"))

    def load_file(self, name: str) -> TFLiteModel:
        """The file of a finalist.

        Raises:
            ValueError: if it is gone or damaged.
        """
        path = self.directory / self._name(name, "final", ".tflite")
        try:
            check_own(path)
            return TFLiteModel.load(path)
        except (OSError, ValueError) as error:
            raise self._files.unreadable(path, error) from error

    def _name(self, name: str, piece: str, suffix: str) -> str:
        # Names hold what users call their parameters.
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return f"students/{digest}-{piece}{suffix}"

    def _read(self) -> None:
        path = self.directory / _MANIFEST
        content = self._files.read_json(_MANIFEST)
        if content is None:
            self._files.check_writable()
            return
        try:
            version, identity = content["version"], dict(content["identity"])
            candidates, seconds = dict(content["candidates"]), float(content["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._files.unreadable(path, error) from error
        if version != _VERSION:
            raise problem(
                f"{str(path)!r} of version {version!r}",
                f"version {_VERSION}",
                "pass another directory",
            )
        others = sorted(
            key
            for key in {*identity, *self._identity}
            if identity.get(key) != self._identity.get(key)
        )
        if others:
            raise problem(
                f"the directory {str(self.directory)!r} with a search of other {', '.join(others)}",
                "a new directory, or the one of the same search",
                "pass another directory, or the arguments of the search that was begun there",
            )
        self.candidates, self._seconds_before = candidates, seconds


def identity_of(
    arrays: Mapping[str, Any], family: Any, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What makes two searches the same, as JSON types.

    Args:
        arrays: what is compared by its values.
        family: the function that makes students; None: forms of the teacher.
        settings: what is compared by what it is: numbers, texts, losses.
    """
    return {
        **{name: digest_of(each) for name, each in arrays.items()},
        "student": family_digest(family),
        **{name: described(value) for name, value in settings.items()},
    }


def described(value: Any) -> Any:
    """A setting as JSON types; of losses the class and its arguments.

    Names are left out: Keras counts them in each process.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items() if key != "name"}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    try:
        config = keras.saving.serialize_keras_object(value)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        config = None
    return described(config) if isinstance(config, Mapping) else type(value).__name__


def family_digest(student: Any) -> str | None:
    """What distinguishes a family of students: its source, or its name where there is none."""
    if student is None:
        return None
    try:
        source = inspect.getsource(student if inspect.isroutine(student) else type(student))
    except (OSError, TypeError):
        source = str(getattr(student, "__qualname__", type(student).__name__))
    return digest_of(np.frombuffer(source.encode(), np.uint8))
