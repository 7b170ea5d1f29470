"""From the keys of a batch to what a teacher said of it."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._files import open_own
from keras_kd.teachers.stored import fingerprint
from keras_kd.teachers.stored.augmentation import TOLERANCE
from keras_kd.teachers.stored.description import (
    AUGMENTED_FIELD,
    FINGERPRINT_FIELD,
    KEY_FIELD,
    KEYS_FILE,
    Description,
)
from keras_kd.teachers.stored.examples import to_numpy
from keras_kd.teachers.stored.keys import KeyIndex, Keys, PositionIndex
from keras_kd.teachers.stored.records import RecordFile

_MOST_NAMED = 3
_AS_SEEN = "as the teacher saw them: the same values, dtype and shape, before any augmentation"
_BY_KEYS = ("keys", f"give the examples the keys that they were stored with, and {_AS_SEEN}")
_BY_POSITIONS = (
    "positions",
    "shuffle after join and not before, or give the examples keys: without keys they come in their "
    f"order, from the first one, and {_AS_SEEN}",
)


class Lookup:
    """Reads records by the keys of their examples; threads may ask at the same time.

    Args:
        file: the records.
        description: what they hold.
    """

    def __init__(self, file: RecordFile, description: Description) -> None:
        self.description = description
        self.keys = Keys(description.key_kind)
        self.examples = file.count // description.versions
        self._file = file
        self._index: PositionIndex | KeyIndex | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self._file, self.description)

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """The numbers of the examples that have these keys.

        Raises:
            ValueError: if nothing is stored of one; the message names it.
        """
        return self.index.find(self.integers(keys), keys)

    def integers(self, keys: np.ndarray) -> np.ndarray:
        """The keys as numbers."""
        return self.keys.to_integers(keys)

    def checked(
        self,
        keys: np.ndarray,
        inputs: list[np.ndarray] | None = None,
        versions: Any = 0,
        marks: Any = None,
    ) -> dict[str, np.ndarray]:
        """What the teacher said of a batch, if it was of these examples.

        Args:
            keys: one per example, as the user gave them; positions where there are none.
            inputs: what the student sees of them before augmentation, a list of arrays; `None` not
                to compare it.
            versions: a number, or one per example.
            marks: those of the augmented examples, see `augmentation.marks`.

        Raises:
            ValueError: if nothing is stored of an example, or of another one by this key; the
                message names the key.
        """
        integers = self.integers(keys)
        rows = self.index.find(integers, keys) * self.description.versions + versions
        records = self._file.read(rows)
        if self._has_keys and not np.array_equal(records[KEY_FIELD], integers):
            raise self._wrong_keys()
        if inputs is not None and self.description.has_fingerprints:
            own = fingerprint.of_examples([to_numpy(part) for part in inputs])
            differs = records[FINGERPRINT_FIELD] != own
            if differs.any():
                raise self._wrong_pairing(keys, differs)
        if marks is not None:
            # NaN is as it was if it is NaN again.
            same = np.isclose(records[AUGMENTED_FIELD], marks, 0, TOLERANCE, equal_nan=True)
            if not same.all():
                raise self._wrong_augmentation(keys, ~same)
        return self.description.contents.decode(records)

    def verify(self) -> None:
        """Read everything, compare all checksums, and the copy of the keys with the records' own.

        Raises:
            ValueError: naming what is damaged.
        """
        self._file.verify()
        if self._has_keys and not np.array_equal(self._stored_keys(), self._own_keys()):
            raise self._wrong_keys()

    @property
    def index(self) -> PositionIndex | KeyIndex:
        """Where the examples are, by their keys as numbers."""
        with self._lock:
            if self._index is None:
                self._index = (
                    KeyIndex(self._stored_keys())
                    if self._has_keys
                    else PositionIndex(self.examples)
                )
            return self._index

    @property
    def _has_keys(self) -> bool:
        return self.description.key_kind != "position"

    def _stored_keys(self) -> np.ndarray:
        path = self._file.directory / KEYS_FILE
        if self._file.complete and path.exists():
            with open(open_own(path, os.O_RDONLY), "rb") as file:
                if os.fstat(file.fileno()).st_size == 8 * self.examples:
                    return np.fromfile(file, "<i8")
        return self._own_keys()

    def _own_keys(self) -> np.ndarray:
        return self._file.column(KEY_FIELD)[:: self.description.versions]

    def _wrong_keys(self) -> ValueError:
        path = self._file.directory / KEYS_FILE
        return ValueError(
            problem(
                f"the keys in {str(path)!r}, which are not those of the records",
                "a copy of the records' own keys",
                "delete this file, which can be done without",
            )
        )

    def _wrong_pairing(self, keys: np.ndarray, differs: np.ndarray) -> ValueError:
        by, fix = _BY_KEYS if self._has_keys else _BY_POSITIONS
        return ValueError(
            problem(
                f"{int(differs.sum())} of {len(differs)} examples of a batch with other inputs "
                f"than those that the teacher {self.description.teacher!r} was shown by the "
                f"{by} "
                f"{_shown(keys, differs)}",
                "the examples whose outputs are stored",
                fix,
            )
        )

    def _wrong_augmentation(self, keys: np.ndarray, differs: np.ndarray) -> ValueError:
        return ValueError(
            problem(
                f"{int(differs.sum())} of {len(differs)} examples of a batch that augment changed "
                "in another way than when their outputs were stored, with the keys "
                f"{_shown(keys, differs)}",
                "the same function, which depends on nothing but the example and the seed",
                "use tf.random.stateless_... and tf.image.stateless_..., and pass the function "
                "that store was given",
            )
        )


def _shown(keys: np.ndarray, differs: np.ndarray) -> str:
    """The first keys in question, as the user gave them."""
    keys = np.asarray(keys).reshape(-1)[differs]
    names = [
        key.decode(errors="replace") if isinstance(key, bytes) else key
        for key in keys[:_MOST_NAMED].tolist()
    ]
    return ", ".join(map(repr, names)) + (", ..." if len(keys) > _MOST_NAMED else "")
