"""The models that a quickstart has trained so far, so that it resumes after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from keras_kd._json import json_value
from keras_kd._state_files import StateFiles

NAME = "unfinished"
_MANIFEST = "models.json"


class Unfinished:
    """The weights of each trained model, in a directory that goes when the results are there.

    What a quickstart of other settings or versions has left is removed: it would give other
    results.

    Args:
        directory: where; no other process may use it meanwhile.
        identity: what the weights depend on, in types that JSON knows.

    Raises:
        OSError: if it cannot be written.
        ValueError: if what is there cannot be read.
    """

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        self._files = StateFiles(directory, "a quickstart")
        self._identity = json_value(identity)
        content = self._files.read_json(_MANIFEST)
        is_same = isinstance(content, dict) and content.get("identity") == self._identity
        self._names: list[str] = content["names"] if is_same else []

    def restore(self, name: str, model: Any) -> bool:
        """Give a model the weights it was trained to, if it was.

        Raises:
            ValueError: if their file cannot be read.
        """
        if name not in self._names:
            return False
        self._files.restore_weights(f"{name}.npz", model)
        return True

    def keep(self, name: str, model: Any) -> None:
        """Keep the weights of a trained model.

        Raises:
            OSError: if they cannot be written; what was kept before is there.
        """
        self._files.write_weights(f"{name}.npz", model)
        names = [*self._names, name]
        self._files.write_json(_MANIFEST, {"identity": self._identity, "names": names})
        self._names = names

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self._files.directory, ignore_errors=True)
