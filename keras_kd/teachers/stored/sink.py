"""Writing of batches of outputs into a store."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._progress import Progress
from keras_kd.teachers.stored.contents import Description
from keras_kd.teachers.stored.database import Records, RecordWriter, bytes_of_row
from keras_kd.teachers.stored.identity import Keys, of_examples


class Sink:
    """Writes a store, or completes an interrupted one.

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
    last that were added, and the next `Sink` of the same description continues there. A store to
    which nothing was added goes.

    Args:
        path: the store; made where it is missing.
        description: the description of the store.
        total: how many examples will come, where that is known: for the progress, and to see
            whether they fit on the disk.

    Raises:
        OSError: if the disk has no room for `total` examples.
        ValueError: if there is a store of another description at `path`; the message names the
            difference they differ.
    """

    def __init__(
        self, path: str | os.PathLike, description: Description, total: int | None = None
    ) -> None:
        self.path = Path(path)
        self.description = description
        self.total = total
        self._keys = Keys(description.key_kind)
        self._position = 0
        self._writer: RecordWriter | None = None

    @property
    def position(self) -> int:
        """How many examples were skipped or added."""
        return self._position

    @property
    def complete(self) -> bool:
        """Whether the store was finished before; then it is only read, by any number at once."""
        return self.records.complete

    def __enter__(self) -> Sink:
        with ExitStack() as stack:
            records = self._finished()
            if records is None:
                total = None if self.total is None else self.total * self.description.versions
                self._writer = records = RecordWriter(
                    self.path,
                    self.description.to_json(),
                    self.description.dtype.itemsize,
                    has_keys=self.description.has_keys,
                    versions=self.description.versions,
                    total=total,
                )
                stack.enter_context(records)
            # How many examples were there, with all of their versions, when the sink was opened.
            self.examples_there = records.count // self.description.versions
            self.records = records
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
        self._compare(*self._identities(count, x, keys), keys)
        self._advance(count)
        return True

    def add(
        self, tensors: dict[str, Any], x: Any = None, keys: Any = None, augmented: Any = None
    ) -> None:
        """Write the teacher's outputs for the next examples.

        Args:
            tensors: by the name of each codec of `description.contents` an array of shape
                `(examples * versions, ...)`; the versions of an example follow each other.
            x: as in `skip`.
            keys: as in `skip`.
            augmented: a number per version that distinguishes augmentations, where the
                store has augmented examples; shape `(examples * versions,)`.

        Raises:
            OSError: if the disk is full; what was written before is valid.
            ValueError: if a value cannot be stored, a key came before, or an example that is in the
                store is another one.
        """
        versions = self.description.versions
        count = len(next(iter(tensors.values()))) // versions
        integers, marks = self._identities(count, x, keys)
        known = min(count, max(0, self.examples_there - self._position))
        self._compare(integers[:known], marks[:known], keys)
        self._check_room(count)
        self._check_once(integers[known:], known, keys)
        records = self.description.packed(tensors, augmented, self._position)[known * versions :]
        if len(records):
            keys, fingerprints = (np.repeat(one[known:], versions) for one in (integers, marks))
            assert self._writer is not None
            self._writer.append(keys, fingerprints, records)
        self._advance(count)

    def finish(self) -> None:
        """Mark the store as complete: there are no more examples.

        Raises:
            ValueError: if the store has more than came, or nothing came.
        """
        if self._position < self.examples_there or not self._position:
            raise problem(
                f"{self._position} examples for the store {str(self.path)!r}, which has "
                f"{self.examples_there}",
                "the data that it was begun with",
                "pass the same data, or another path",
            )
        if self._writer is not None:
            self._writer.finish()

    def _finished(self) -> Records | None:
        """The records of a store that is complete; `None` where some can be written.

        Raises:
            ValueError: if there is a store of another description.
        """
        if not self.path.is_file() or not self.path.stat().st_size:
            return None
        records = Records(self.path)
        difference = self.description.difference(Description.from_json(records.description))
        if difference is None and records.complete:
            return records
        records.close()
        if difference is not None:
            name, now, then = difference
            raise problem(
                f"{name}: {now}, for the store {str(self.path)!r}, which was begun with {then}",
                "the same as when it was begun, to complete it",
                "pass what it was begun with, or choose another path",
            )
        return None

    def _identities(self, count: int, x: Any, keys: Any) -> tuple[np.ndarray, np.ndarray]:
        """The key and the fingerprint of each example; 0 where the store has none."""
        has_keys, has_fingerprints = self.description.has_keys, self.description.has_fingerprints
        return (
            self._keys.to_integers(keys) if has_keys else np.zeros(count, np.int64),
            of_examples(x) if has_fingerprints else np.zeros(count, np.uint16),
        )

    def _compare(self, integers: np.ndarray, marks: np.ndarray, keys: Any) -> None:
        """Check that these are the examples that the store has at this place."""
        if not len(integers):
            return
        there = self.records.read(
            (self._position + np.arange(len(integers))) * self.description.versions
        )
        differs = (there.keys != integers) | (there.fingerprints != marks)
        if differs.any():
            place = int(np.argmax(differs))
            key = "" if keys is None else f" with the key {_shown(keys[place])}"
            raise problem(
                f"the example number {self._position + place}{key}, which is not the one that "
                f"the store {str(self.path)!r} has at this place",
                "the same examples in the same order each time",
                "pass the data that the store was begun with, without shuffling or random "
                "augmentation, or choose another path",
            )

    def _check_once(self, integers: np.ndarray, known: int, keys: Any) -> None:
        """Check that no key came before; `integers` are those after the first `known`."""
        if not self.description.has_keys:
            return
        again = self.records.find(integers) >= 0
        _, first = np.unique(integers, return_index=True)
        again[np.setdiff1d(np.arange(len(integers)), first)] = True
        if again.any():
            place = known + int(np.argmax(again))
            raise problem(
                f"the key {_shown(keys[place])} a second time, at the example number "
                f"{self._position + place}",
                "a different key for each example, and each example once",
                "store the data without repeat(), and give each example another key",
            )

    def _check_room(self, count: int) -> None:
        """Check that the store is not complete without these."""
        if not self.complete or self._position + count <= self.examples_there:
            return
        raise problem(
            f"more than {self.examples_there} examples for the store {str(self.path)!r}, which "
            "is complete with these",
            "the data that it was made of",
            "pass the same data, or another path",
        )

    def _check_total(self) -> None:
        if self.total is None:
            return
        there = self.examples_there
        if self.total < there or (self.complete and self.total != there):
            raise problem(
                f"{self.total} examples for the store {str(self.path)!r}, which has {there}",
                "the data that it was begun with",
                "pass the same data, or another path",
            )
        missing = (self.total - there) * self.description.versions
        size = bytes_of_row(self.description.dtype.itemsize, self.description.has_keys)
        needed = missing * size
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise problem(
                f"{missing} records of about {size} bytes for "
                f"{str(self.path)!r}: {needed} bytes on a disk with {free} bytes left",
                "a disk with room for all of them",
                "free space, choose another path, or store less: dtype='uint8', top_k=16, or "
                "fewer layers",
                kind=OSError,
            )

    def _advance(self, count: int) -> None:
        self._position += count
        self._progress.advance(count)


def _shown(key: Any) -> str:
    """A key as the user gave it."""
    key = key.item() if isinstance(key, np.generic) else key
    return repr(key.decode(errors="replace") if isinstance(key, bytes) else key)
