"""Batches of examples and of what a teacher says of them, on their way into a file."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._files import replacing
from keras_kd._progress import Progress
from keras_kd.teachers.stored import fingerprint
from keras_kd.teachers.stored.description import (
    AUGMENTED_FIELD,
    FINGERPRINT_FIELD,
    KEY_FIELD,
    KEYS_FILE,
    Description,
)
from keras_kd.teachers.stored.keys import Keys
from keras_kd.teachers.stored.records import RecordFile, RecordWriter
from keras_kd.teachers.stored.records.header import (
    HEADER,
    Header,
    check_same,
    new_header,
    read_header,
)
from keras_kd.teachers.stored.records.journal import JOURNAL
from keras_kd.teachers.stored.records.layout import RECORDS


class Sink:
    """Writes a store, or goes on with one that was interrupted.

    Examples come in the same order each time. Those that are in the store already are compared with
    it, by their keys and fingerprints, and not written again.

        description = Description(contents, teacher="resnet", key_kind="integer", key_name="key")
        with Sink(path, description, total=len(x)) as sink:
            for keys, x, ... in batches:
                if not sink.skip(len(x), x, keys):      # they are there already, all of them
                    sink.add({"outputs": logits}, x, keys)
            sink.finish()

    `skip` or `add` is called once for each batch. `add` takes a whole batch, of which some may be
    there. Whatever ends the `with` block early, the store is valid up to some examples before the
    last that were added, and the next `Sink` of the same description goes on there. A store to
    which nothing was added goes.

    Args:
        path: the directory of the store; made where it is missing.
        description: what the store says of itself.
        total: how many examples will come, where that is known: for the progress, and to see
            whether they fit on the disk.

    Raises:
        OSError: if the disk has no room for `total` examples.
        ValueError: if there is a store of another description at `path`; the message says in what
            they differ.
    """

    def __init__(
        self, path: str | os.PathLike, description: Description, total: int | None = None
    ) -> None:
        self.path = Path(path)
        self.description = description
        self.total = total
        self._keys = Keys(description.key_kind)
        self._position = 0
        self._taken_keys: list[np.ndarray] = []
        self._seen_keys: set[int] = set()

    @property
    def position(self) -> int:
        """How many examples were skipped or added."""
        return self._position

    @property
    def complete(self) -> bool:
        """Whether the store was finished before; then it is only read, by any number at once."""
        return self._writer is None or self._writer.complete

    @property
    def examples_there(self) -> int:
        """How many examples were there, with all of their versions, when the sink was opened."""
        return self._there // self.description.versions

    def __enter__(self) -> Sink:
        self._file = self._finished()
        self._writer = None
        with ExitStack() as stack:
            if self._file is None:
                self._begin_writing(stack)
            else:
                self._there = self._file.count
            self._check_total()
            self._progress = stack.enter_context(
                Progress(f"Storing {self.description.teacher}", self.total)
            )
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._closing.__exit__(*error)

    def skip(self, count: int, x: Any = None, keys: Any = None) -> bool:
        """Whether the next examples are all in the store already; then they are done with.

        Args:
            count: how many examples.
            x: their inputs, a structure of arrays, where the store has fingerprints.
            keys: an array of their keys, where the store has keys.

        Raises:
            ValueError: if they are not those that are in the store at this place.
        """
        if self._position + count > self.examples_there:
            return False
        identities = self._identities(count, x, keys)
        self._compare(identities, keys)
        self._take_keys(identities, keys)
        self._advance(count)
        return True

    def add(
        self, tensors: dict[str, Any], x: Any = None, keys: Any = None, augmented: Any = None
    ) -> None:
        """Write what the teacher says of the next examples.

        Args:
            tensors: by the name of each codec of `description.contents` an array of shape
                `(examples * versions, ...)`; the versions of an example follow each other.
            x: as in `skip`.
            keys: as in `skip`.
            augmented: a number per version that tells one augmentation from another, where the
                store has augmented examples; shape `(examples * versions,)`.

        Raises:
            OSError: if the disk is full; what was written before is valid.
            ValueError: if a value cannot be stored, a key came before, or an example that is in the
                store is another one.
        """
        versions = self.description.versions
        count = len(next(iter(tensors.values()))) // versions
        identities = self._identities(count, x, keys)
        known = min(count, max(0, self.examples_there - self._position))
        self._compare(identities[:known], keys)
        self._take_keys(identities, keys)
        self._check_room(count)
        records = np.zeros(count * versions, self.description.dtype)
        for name in identities.dtype.names or ():
            records[name] = np.repeat(identities[name], versions)
        if self.description.seed is not None:
            records[AUGMENTED_FIELD] = augmented
        for name, values in self.description.contents.encode(tensors, self._position).items():
            records[name] = values
        there = max(0, self._there - self._position * versions)
        self._writer.append(records[there:])
        self._advance(count)

    def finish(self) -> None:
        """Mark the store as complete: there are no more examples.

        Raises:
            ValueError: if the store has more than came, or nothing came.
        """
        if self._position < self.examples_there or not self._position:
            raise ValueError(
                problem(
                    f"{self._position} examples for the store {str(self.path)!r}, which has "
                    f"{self.examples_there}",
                    "the data that it was begun with",
                    "pass the same data, or another path",
                )
            )
        if self.complete:
            return
        if self._taken_keys:
            with replacing(self.path / KEYS_FILE) as path:
                # NumPy's tofile does not say why it fails.
                path.write_bytes(np.concatenate(self._taken_keys).astype("<i8").tobytes())
        self._writer.finish()

    def _check_same(self, header: Header) -> None:
        """Say what differs from a store that is there, in the words of the caller.

        Raises:
            ValueError: if anything does.
        """
        difference = self.description.difference(Description.from_json(header.entries))
        if difference is not None:
            name, now, then = difference
            raise ValueError(
                problem(
                    f"{name}: {now}, for the store {str(self.path)!r}, which was begun with {then}",
                    "the same as when it was begun, to go on with it",
                    "pass what it was begun with, or choose another path",
                )
            )
        given = new_header(self.description.to_json(), self.description.dtype)
        check_same(self.path, header, given)

    def _finished(self) -> RecordFile | None:
        """The records of a store that is complete; `None` where some can be written.

        Raises:
            ValueError: if there is a store of another description.
        """
        if not (self.path / HEADER).is_file():
            return None
        self._check_same(read_header(self.path))
        file = RecordFile(self.path)
        return file if file.complete else None

    def _begin_writing(self, stack: ExitStack) -> None:
        """Open the store for the only writer that it may have."""
        total = None if self.total is None else self.total * self.description.versions
        writer = RecordWriter(
            self.path, self.description.to_json(), self.description.dtype, total=total
        )
        self._writer = stack.enter_context(writer)
        # Records that were there; the last example may lack some of its versions.
        self._there = writer.count
        stack.callback(self._remove_empty)
        self._file = RecordFile(self.path) if writer.count else None

    def _remove_empty(self) -> None:
        """Leave no store without examples, in the way of one of another description."""
        if not self._there and not self._position:
            for name in (HEADER, JOURNAL, RECORDS, KEYS_FILE):
                (self.path / name).unlink(missing_ok=True)
            # What else is in it is the user's.
            with suppress(OSError):
                self.path.rmdir()

    def _identities(self, count: int, x: Any, keys: Any) -> np.ndarray:
        """The key and the fingerprint of each example, as far as the store has them."""
        names = [
            name for name in (KEY_FIELD, FINGERPRINT_FIELD) if name in self.description.dtype.names
        ]
        identities = np.zeros(count, [(name, self.description.dtype[name]) for name in names])
        if KEY_FIELD in names:
            identities[KEY_FIELD] = self._keys.to_integers(keys)
        if FINGERPRINT_FIELD in names:
            identities[FINGERPRINT_FIELD] = fingerprint.of_examples(x)
        return identities

    def _compare(self, identities: np.ndarray, keys: Any) -> None:
        """Check that these are the examples that the store has at this place."""
        if not len(identities) or not identities.dtype.names:
            return
        rows = (self._position + np.arange(len(identities))) * self.description.versions
        there = self._file.read(rows)
        differs = np.zeros(len(identities), bool)
        for name in identities.dtype.names:
            differs |= there[name] != identities[name]
        if differs.any():
            place = int(np.argmax(differs))
            key = "" if keys is None else f" with the key {_shown(keys[place])}"
            raise ValueError(
                problem(
                    f"the example number {self._position + place}{key}, which is not the one that "
                    f"the store {str(self.path)!r} has at this place",
                    "the same examples in the same order each time",
                    "pass the data that the store was begun with, without shuffling or random "
                    "augmentation, or choose another path",
                )
            )

    def _take_keys(self, identities: np.ndarray, keys: Any) -> None:
        """Note the keys; each may come once."""
        if KEY_FIELD not in self.description.dtype.names:
            return
        for place, key in enumerate(identities[KEY_FIELD].tolist()):
            if key in self._seen_keys:
                raise ValueError(
                    problem(
                        f"the key {_shown(keys[place])} a second time, at the example number "
                        f"{self._position + place}",
                        "a key of its own for each example, and each example once",
                        "store the data without repeat(), and give each example another key",
                    )
                )
            self._seen_keys.add(key)
        self._taken_keys.append(identities[KEY_FIELD].copy())

    def _check_room(self, count: int) -> None:
        """Check that the store is not complete without these."""
        if not self.complete or self._position + count <= self.examples_there:
            return
        raise ValueError(
            problem(
                f"more than {self.examples_there} examples for the store {str(self.path)!r}, which "
                "is complete with these",
                "the data that it was made of",
                "pass the same data, or another path",
            )
        )

    def _check_total(self) -> None:
        if self.total is None:
            return
        there = self.examples_there
        if self.total < there or (self.complete and self.total != there):
            raise ValueError(
                problem(
                    f"{self.total} examples for the store {str(self.path)!r}, which has {there}",
                    "the data that it was begun with",
                    "pass the same data, or another path",
                )
            )
        missing = self.total * self.description.versions - self._there
        needed = missing * self.description.dtype.itemsize
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise OSError(
                problem(
                    f"{missing} records of {self.description.dtype.itemsize} bytes for "
                    f"{str(self.path)!r}: {needed} bytes on a disk with {free} bytes left",
                    "a disk with room for all of them",
                    "free space, choose another path, or store less: dtype='uint8', top_k=16, or "
                    "fewer layers",
                )
            )

    def _advance(self, count: int) -> None:
        self._position += count
        self._progress.advance(count)


def _shown(key: Any) -> str:
    """A key as the user gave it."""
    key = key.item() if isinstance(key, np.generic) else key
    return repr(key.decode(errors="replace") if isinstance(key, bytes) else key)
