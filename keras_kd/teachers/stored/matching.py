"""Batches as users give them, and what a teacher said of their examples."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.teachers.joined import joined
from keras_kd.teachers.stored.augmentation import Augmentation, Visits, marks
from keras_kd.teachers.stored.description import Description
from keras_kd.teachers.stored.examples import Division, to_numpy
from keras_kd.teachers.stored.lookup import Lookup

# An entry beside the outputs whose name says whose they are; there is nothing in it.
SOURCE = "from "


def source_mark(description: Description) -> str:
    """The name of that entry: the teacher's, and the beginning of the digest of its weights."""
    return f"{SOURCE}{description.teacher} {(description.digest or '')[:8]}".rstrip()


class Matching:
    """Finds stored outputs for the examples of a batch, and augments them as they were.

    Args:
        lookup: where the outputs are found.
        augmentation: how the examples were augmented, or `None`.
        verify: whether the examples' fingerprints are compared.
        key: the entry of dict inputs that is the key; `None`: the one that the store tells.

    Raises:
        ValueError: if there is to be a key, and the store has none.
    """

    def __init__(
        self,
        lookup: Lookup,
        augmentation: Augmentation | None = None,
        *,
        verify: bool = True,
        key: str | None = None,
    ) -> None:
        description = lookup.description
        by_position = description.key_kind == "position"
        if by_position and key is not None:
            raise ValueError(
                problem(
                    f"key={key!r} for a store of examples without keys",
                    "examples in the order in which they were stored",
                    "leave out key, or store the outputs with key='name'",
                )
            )
        names = description.teacher_inputs
        self.lookup = lookup
        self.augmentation = augmentation
        self._verify = verify and description.has_fingerprints
        self._division = Division(
            None if by_position else (key or description.key_name),
            None if names is None else list(names),
        )
        self._visits = None
        if augmentation is not None:
            self._visits = Visits(lookup.examples, description.versions)

    @property
    def has_keys(self) -> bool:
        """Whether the examples bring keys; else their positions are."""
        return self._division.key is not None

    def divided(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, tuple]:
        """The key of a batch, or `None`; its other inputs; and what it has beside them.

        Raises:
            ValueError: if the key is not there.
        """
        key, x = self._division(x)
        if sample_weight is not None:
            return key, x, (y, sample_weight)
        return key, x, () if y is None else (y,)

    def of_student(self, x: Any) -> Any:
        """What the student sees of the inputs."""
        return self._division.inputs.of_student(x)

    def keys(self, keys: np.ndarray, count: int) -> np.ndarray:
        """The keys of a batch; of the place of its first example those of all."""
        if keys.ndim:
            return keys
        places = keys + np.arange(count)
        # The data may begin again, which their fingerprints must confirm.
        return places % self.lookup.examples if self._verify else places

    def following(
        self, keys: np.ndarray, version: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The versions of these examples, and their seeds.

        Args:
            keys: their keys.
            version: of all of them; `None`: for each the one that comes next.
        """
        if version is None:
            versions = self._visits.next_versions(self.lookup.rows(keys))
        else:
            versions = np.full(len(keys), version % self.lookup.description.versions)
        return versions, self.augmentation.seeds(self.lookup.integers(keys), versions)

    def look_up(
        self, keys: np.ndarray, inputs: list[np.ndarray], versions: Any = 0, told: Any = None
    ) -> dict[str, np.ndarray]:
        """What the teacher said, by the names of `Contents.decoded`; see `Lookup.checked`.

        Args:
            keys: as `keys` takes them.
            inputs: the leaves of what the student sees, before augmentation.
            versions: a number, or one per example.
            told: the marks of the augmented examples.
        """
        keys = self.keys(keys, len(inputs[0]))
        return self.lookup.checked(keys, inputs if self._verify else None, versions, told)

    def batch(self, batch: Any, position: int, version: int | None = None) -> tuple:
        """A batch of arrays with its outputs.

        Args:
            batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
            position: of its first example, where there are no keys.
            version: of all of its examples; `None`: for each the one that comes next.
        """
        key, x, others = self.divided(*keras.utils.unpack_x_y_sample_weight(batch))
        inputs = keras.tree.flatten(self.of_student(x))
        keys = self.keys(np.int64(position) if key is None else np.asarray(key), len(inputs[0]))
        if self.augmentation is None:
            return self.with_source(self.of_student(x), self.look_up(keys, inputs), others)
        versions, seeds = self.following(keys, version)
        augmented = self.of_student(self.augmentation(to_numpy(x), seeds))
        arrays = self.look_up(keys, inputs, versions, marks(augmented).numpy())
        return self.with_source(keras.tree.map_structure(np.asarray, augmented), arrays, others)

    def with_source(self, x: Any, outputs: dict[str, Any], others: tuple) -> tuple:
        """A batch of inputs and outputs that says whose these are."""
        some = next(iter(outputs.values()))
        zeros = np.zeros if isinstance(some, np.ndarray) else keras.ops.zeros
        # Not of no size at all: TensorFlow can divide by it.
        nothing = zeros((keras.ops.shape(some)[0],), dtype="bool")
        return joined(x, {**outputs, source_mark(self.lookup.description): nothing}), *others
