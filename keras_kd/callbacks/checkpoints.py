"""The last checkpoints of a training, in a directory."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import one_line, problem, three_parts
from keras_kd._files import remove_leftovers
from keras_kd._state_files import StateFiles, using
from keras_kd.callbacks.identity import differences

_VERSION = 1
_WORK = "a training"
_KEPT = 2
_NAME = re.compile(r"training-(\d{10})\.npz")
_STATE = "state"
_SHOWN = 3


class Checkpoint(NamedTuple):
    """The state of a training.

    Attributes:
        epoch: that is to be continued, from 0.
        step: how many steps of it are done.
        epoch_start: how many batches were read before this epoch.
        seed: of the order of the data.
        run: drawn when the training was begun, the same on all its workers.
        state: what `Snapshot.take` gave.
        arrays: what it gave beside it.
    """

    epoch: int
    step: int
    epoch_start: int
    seed: int
    run: int
    state: Mapping[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def number(self) -> int:
        """How many batches were read before it."""
        return self.epoch_start + self.step


class Checkpoints:
    """One file for each of the last two.

    Args:
        directory: where; it may be missing.

    Raises:
        NotADirectoryError: if it is a file.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self._files = StateFiles(directory, _WORK)

    def of_worker(self, name: str) -> Checkpoints:
        """Those of one of several workers, in a directory of its own."""
        return Checkpoints(self._files.directory / name)

    def using(self) -> AbstractContextManager[None]:
        """Keep other trainings from the directory.

        Raises:
            BlockingIOError: if another one is running there.
        """
        return using(self._files.directory, _WORK)

    def save(self, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
        """Add one, and remove those that are not among the last two.

        Raises:
            OSError: if it cannot be written; those before it are kept.
        """
        content = {
            "version": _VERSION,
            "identity": identity,
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "epoch_start": checkpoint.epoch_start,
            "seed": checkpoint.seed,
            "run": checkpoint.run,
            **checkpoint.state,
        }
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
        number = checkpoint.number
        self._files.write_arrays(_name(number), {_STATE: text, **checkpoint.arrays})
        # Later ones were damaged, or are of before a damaged one.
        kept = [each for each in self._numbers() if each <= number][:_KEPT]
        self._remove(lambda each: each not in kept)

    def remove_after(self, number: int) -> None:
        """Remove those with more batches before them, to which a training does not come back."""
        self._remove(lambda each: each > number)

    def readable(self, identity: Mapping[str, Any]) -> Iterator[Checkpoint]:
        """Those that can be read, the last first; a warning names the others.

        Raises:
            ValueError: if one is of another training, or all are damaged.
        """
        remove_leftovers(self._files.directory)
        error, is_any = None, False
        for number in self._numbers():
            path = self._files.directory / _name(number)
            try:
                version, kept, found = self._read(path)
            except ValueError as unreadable:
                error = unreadable
                warnings.warn(
                    three_parts(
                        f"the damaged checkpoint {str(path)!r} "
                        f"({one_line(unreadable.__cause__)[:100]})",
                        "a file as ResumeTraining has written it",
                        "do nothing: the checkpoint before it is used, if there is one",
                    ),
                    stacklevel=2,
                )
                continue
            self._check(version, kept, identity)
            is_any = True
            yield found
        if error is not None and not is_any:
            raise error

    def _read(self, path: Path) -> tuple[Any, Any, Checkpoint]:
        """The version of a file, the identity of its training, and what it holds.

        Raises:
            ValueError: if it cannot be read.
        """
        arrays = self._files.read_arrays(path.name)
        try:
            content = json.loads(arrays.pop(_STATE).tobytes())
            state = {name: content[name] for name in ("variables", "callbacks", "random")}
            found = Checkpoint(
                epoch=int(content["epoch"]),
                step=int(content["step"]),
                epoch_start=int(content["epoch_start"]),
                seed=int(content["seed"]),
                run=int(content.get("run", 0)),
                state={**state, "stopped": bool(content["stopped"])},
                arrays=arrays,
            )
            return content["version"], content["identity"], found
        except (ValueError, KeyError, TypeError) as error:
            raise self._files.unreadable(path, error) from error

    def _check(self, version: Any, kept: Any, identity: Mapping[str, Any]) -> None:
        directory = str(self._files.directory)
        if version != _VERSION:
            raise problem(
                f"directory={directory!r} with checkpoints of format {version}",
                f"format {_VERSION}",
                "pass another directory to begin anew",
            )
        found = list(differences(kept, identity))
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise problem(
                f"directory={directory!r}, which holds another training: "
                f"{'; '.join(found[:_SHOWN])}{more}",
                "the model, data and arguments with which that training was begun",
                "pass another directory to begin anew, or the model, data and arguments of that "
                "training",
            )

    def _remove(self, is_removed: Callable[[int], bool]) -> None:
        for number in filter(is_removed, self._numbers()):
            with suppress(OSError):
                (self._files.directory / _name(number)).unlink()

    def _numbers(self) -> list[int]:
        """The numbers of the files, the last first."""
        found = (
            map(_NAME.fullmatch, os.listdir(self._files.directory))
            if (self._files.directory.is_dir())
            else ()
        )
        return sorted((int(match[1]) for match in found if match), reverse=True)


def _name(number: int) -> str:
    return f"training-{number:010}.npz"
