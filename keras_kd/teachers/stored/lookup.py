"""Lookup of the stored outputs of a batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.teachers.joined import joined
from keras_kd.teachers.stored.augmentation import TOLERANCE, Augmentation, Visits, marks
from keras_kd.teachers.stored.contents import AUGMENTED_FIELD, Description
from keras_kd.teachers.stored.database import Records
from keras_kd.teachers.stored.examples import Batch, Division, to_numpy
from keras_kd.teachers.stored.identity import Keys, of_examples

# An empty entry beside the outputs whose name identifies their teacher.
SOURCE = "from "
_MOST_NAMED = 3
_AS_SEEN = "as the teacher saw them: the same values, dtype and shape, before any augmentation"
_BY_KEYS = ("keys", f"give the examples the keys that they were stored with, and {_AS_SEEN}")
_BY_POSITIONS = (
    "positions",
    "shuffle after join and not before, or give the examples keys: without keys they come in their "
    f"order, from the first one, and {_AS_SEEN}",
)


def source_mark(description: Description) -> str:
    """The name of that entry: the teacher's, and the beginning of the digest of its weights."""
    return f"{SOURCE}{description.teacher} {(description.digest or '')[:8]}".rstrip()


class Lookup:
    """Finds stored outputs for examples, and augments these as they were; threads may share it.

    Args:
        records: those of the store.
        description: the description of the store.
        augmentation: how the examples were augmented, or `None`.
        verify: whether the examples' fingerprints are compared.
        key: the entry of dict inputs that is the key; `None`: the one that the store names.

    Raises:
        ValueError: if a key is needed, and the store has none.
    """

    def __init__(
        self,
        records: Records,
        description: Description,
        augmentation: Augmentation | None = None,
        *,
        verify: bool = True,
        key: str | None = None,
    ) -> None:
        has_keys = description.has_keys
        if key is not None and not has_keys:
            raise problem(
                f"key={key!r} for a store of examples without keys",
                "examples in the order in which they were stored",
                "leave out key, or store the outputs with key='name'",
            )
        names = description.teacher_inputs
        self.description = description
        self.augmentation = augmentation
        self.divided = Division(
            (key or description.key_name) if has_keys else None,
            None if names is None else list(names),
        )
        # The student's part of the inputs without the key.
        self.of_student = self.divided.inputs.of_student
        self._records = records
        self._examples = records.count // description.versions
        self._keys = Keys(description.key_kind)
        self._verify = verify and description.has_fingerprints
        self.visits: Visits | None = None
        if augmentation is not None:
            self.visits = Visits(self._examples, description.versions)

    def keys(self, keys: Any, count: int) -> np.ndarray:
        """The keys of a batch; of the place of its first example, the places of all."""
        keys = np.asarray(keys)
        if keys.ndim:
            return keys
        places = keys + np.arange(count)
        # The data may begin again, which their fingerprints must confirm.
        return places % self._examples if self._verify else places

    def following(
        self, keys: np.ndarray, version: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The versions of these examples, and their seeds.

        Args:
            keys: their keys.
            version: of all of them; `None`: for each the one that comes next.
        """
        integers = self._keys.to_integers(keys)
        assert self.augmentation is not None
        if version is None:
            assert self.visits is not None
            versions = self.visits.next_versions(self._find(keys, integers))
        else:
            versions = np.full(len(keys), version % self.description.versions)
        return versions, self.augmentation.seeds(integers, versions)

    def outputs(
        self, keys: Any, inputs: Any = None, versions: Any = 0, own_marks: Any = None
    ) -> dict[str, np.ndarray]:
        """The stored outputs for a batch, if they are of these examples.

        Args:
            keys: as `keys` takes them, one per example where there are no inputs.
            inputs: what the student sees of them before augmentation, a list of arrays; `None` not
                to compare it.
            versions: a number, or one per example.
            own_marks: the marks of the augmented examples, see `augmentation.marks`.

        Returns:
            Arrays by the names of `Contents.decoded`.

        Raises:
            ValueError: if nothing is stored of an example, or of another one by this key; the
                message names the key.
        """
        keys = np.asarray(keys) if inputs is None else self.keys(keys, len(inputs[0]))
        integers = self._keys.to_integers(keys)
        places = self._find(keys, integers) * self.description.versions + versions
        rows = self._records.read(places)
        if self.description.has_keys and not np.array_equal(rows.keys, integers):
            raise self._records.damaged("its index of keys leads to records of others")
        if inputs is not None and self._verify:
            own = of_examples([to_numpy(part) for part in inputs])
            if (rows.fingerprints != own).any():
                raise self._wrong_pairing(keys, rows.fingerprints != own)
        records = self.description.unpacked(rows.outputs)
        if own_marks is not None:
            # NaN is as it was if it is NaN again.
            same = np.isclose(records[AUGMENTED_FIELD], own_marks, 0, TOLERANCE, equal_nan=True)
            if not same.all():
                raise _wrong_augmentation(keys, ~same)
        return self.description.contents.decode(records)

    def batch(self, batch: Any, position: int, version: int | None = None) -> tuple:
        """A batch of arrays with its outputs.

        Args:
            batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
            position: of its first example, where there are no keys.
            version: of all of its examples; `None`: for each the one that comes next.
        """
        divided = self.divided(batch)
        x = self.of_student(divided.x)
        inputs = keras.tree.flatten(x)
        keys = self.keys(position if divided.key is None else divided.key, len(inputs[0]))
        if self.augmentation is None:
            return self.with_source(x, self.outputs(keys, inputs), divided)
        versions, seeds = self.following(keys, version)
        augmented = self.of_student(self.augmentation(to_numpy(divided.x), seeds))
        arrays = self.outputs(keys, inputs, versions, np.asarray(marks(augmented)))
        return self.with_source(keras.tree.map_structure(np.asarray, augmented), arrays, divided)

    def with_source(self, x: Any, outputs: dict[str, Any], batch: Batch) -> tuple:
        """Inputs, outputs with the mark of their teacher, and the labels of the batch."""
        some = next(iter(outputs.values()))
        # Not of no size at all: TensorFlow can divide by it.
        if isinstance(some, np.ndarray):
            nothing = np.zeros((len(some),), dtype="bool")
        else:
            # In `tf.data`, on every backend.
            import tensorflow as tf

            nothing = tf.zeros(tf.shape(some)[:1], dtype="bool")
        return joined(x, {**outputs, source_mark(self.description): nothing}), *batch.labels

    def _find(self, keys: np.ndarray, integers: np.ndarray) -> np.ndarray:
        """The numbers of the examples that have these keys.

        Raises:
            ValueError: if nothing is stored of one; the message names it.
        """
        if self.description.has_keys:
            found = self._records.find(integers) // self.description.versions
        else:
            found = np.where(integers < self._examples, integers, -1)
        unknown = found < 0
        if unknown.any():
            raise problem(
                f"keys without stored outputs ({unknown.sum()} of {len(unknown)}): "
                f"{_shown(keys, unknown)}",
                f"keys of the {self._examples} examples that are stored",
                "check that these are the data whose outputs were stored, and that none "
                "were added since",
            )
        return found

    def _wrong_pairing(self, keys: np.ndarray, differs: np.ndarray) -> ValueError:
        by, fix = _BY_KEYS if self.description.has_keys else _BY_POSITIONS
        return problem(
            f"{int(differs.sum())} of {len(differs)} inputs of a batch that differ from those "
            f"stored for the teacher {self.description.teacher!r} at the {by} "
            f"{_shown(keys, differs)}",
            "the examples whose outputs are stored",
            fix,
        )


def _wrong_augmentation(keys: np.ndarray, differs: np.ndarray) -> ValueError:
    return problem(
        f"{int(differs.sum())} of {len(differs)} examples of a batch that augment changed "
        "differently when their outputs were stored, with the keys "
        f"{_shown(keys, differs)}",
        "the same function, which depends on nothing but the example and the seed",
        "use tf.random.stateless_... and tf.image.stateless_..., and pass the function that "
        "StoredTeacher.create was given",
    )


def _shown(keys: np.ndarray, chosen: np.ndarray) -> str:
    """The first keys in question, as the user gave them."""
    keys = np.asarray(keys).reshape(-1)[chosen]
    names = [
        key.decode(errors="replace") if isinstance(key, bytes) else key
        for key in keys[:_MOST_NAMED].tolist()
    ]
    return ", ".join(map(repr, names)) + (", ..." if len(keys) > _MOST_NAMED else "")
