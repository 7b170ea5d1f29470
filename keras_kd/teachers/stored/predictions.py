"""What a teacher has said, in whatever form a user has it, as batches of arrays by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.teachers.stored.asking import LOGITS
from keras_kd.teachers.stored.examples import to_numpy

_EXPECTED = (
    "an array (examples, ...), a dict of such arrays, or an iterable of batches of these or of "
    "pairs (keys, batch)"
)


class Batch(NamedTuple):
    """Some successive examples.

    Attributes:
        tensors: what the teacher said, `LOGITS` and names of layers, each of shape (examples, ...).
        x: the examples, or `None`.
        keys: their keys, or `None`.
    """

    tensors: dict[str, np.ndarray]
    x: Any
    keys: np.ndarray | None

    @property
    def count(self) -> int:
        """How many examples."""
        return len(next(iter(self.tensors.values())))


class Predictions:
    """Iterates over batches of what a teacher has said.

    Args:
        outputs: as in `store_outputs`.
        x: the examples in the same order, an array or a structure of arrays, or `None`.
        keys: an array of their keys, or `None`.
        batch_size: into how many examples arrays are cut.

    Attributes:
        total: how many examples there are; `None` where that shows at the end only.

    Raises:
        TypeError: if the outputs are none of what is expected.
        ValueError: if the lengths differ, or names are missing.
    """

    def __init__(self, outputs: Any, x: Any, keys: Any, batch_size: int) -> None:
        self._outputs = outputs
        self._x = x
        self._keys = None if keys is None else np.asarray(keys)
        self._batch_size = batch_size
        is_whole = _is_array(outputs) or isinstance(outputs, dict)
        if not is_whole and (isinstance(outputs, str) or not isinstance(outputs, Iterable)):
            raise _unexpected("outputs", outputs)
        self.total = _count(_named(outputs)) if is_whole else None
        self._known_lengths = [len(array) for array in _leaves(x)]
        if self._keys is not None:
            self._known_lengths.append(len(self._keys))
        if self.total is not None:
            self._check_lengths(self.total)

    def __iter__(self) -> Iterator[Batch]:
        pieces = self._outputs if self.total is None else self._slices()
        first: Batch | None = None
        examples = 0
        for piece in pieces:
            own_keys, piece = piece if _is_pair(piece) else (None, piece)
            batch = self._batch(_named(piece), own_keys, examples)
            first = first or batch
            _check_alike(first, batch)
            # A stream may end in a batch of nobody.
            if batch.count:
                examples += batch.count
                yield batch
        self._check_lengths(examples)

    def _slices(self) -> Iterator[dict[str, Any]]:
        arrays = _named(self._outputs)
        for first in range(0, self.total or 0, self._batch_size):
            yield {name: array[first : first + self._batch_size] for name, array in arrays.items()}

    def _batch(self, arrays: dict[str, Any], own_keys: Any, first: int) -> Batch:
        part = slice(first, first + _count(arrays))
        keys = own_keys if self._keys is None else self._keys[part]
        if own_keys is not None and self._keys is not None:
            raise ValueError(
                problem("keys=... and pairs (keys, batch)", "one of them", "leave out keys=...")
            )
        x = self._x
        if x is not None:
            x = to_numpy(keras.tree.map_structure(lambda array: array[part], x))
        tensors = {name: _numbers(name, array) for name, array in arrays.items()}
        return Batch(tensors, x, None if keys is None else np.asarray(keys))

    def _check_lengths(self, examples: int) -> None:
        """Check that all that was given is about as many examples."""
        for length in self._known_lengths:
            if length != examples:
                raise ValueError(
                    problem(
                        f"predictions of {examples} examples, and x or keys of {length}",
                        "one prediction for each example, in the same order",
                        "pass the x and the keys that the predictions are of",
                    )
                )
        if not examples:
            raise ValueError(
                problem("no predictions", "at least one", "pass the teacher's predictions")
            )


def _is_array(value: Any) -> bool:
    """Whether this can be cut into batches; what NumPy, TensorFlow, h5py and zarr have can."""
    return hasattr(value, "shape") and hasattr(value, "__getitem__")


def _is_pair(piece: Any) -> bool:
    return isinstance(piece, tuple) and len(piece) == 2


def _named(piece: Any) -> dict[str, Any]:
    """Arrays by name; a single one is the teacher's output."""
    arrays = piece if isinstance(piece, dict) else {LOGITS: piece}
    for name, array in arrays.items():
        if not isinstance(name, str) or not name or not _is_array(array) or not len(array.shape):
            raise _unexpected(f"outputs[{name!r}]" if isinstance(piece, dict) else "outputs", array)
    if not arrays:
        raise _unexpected("outputs", piece)
    return arrays


def _numbers(name: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if not np.can_cast(array.dtype, "float64"):
        raise TypeError(
            problem(
                f"{name!r} of type {array.dtype}", "numbers", "pass what the teacher said as floats"
            )
        )
    return array


def _count(arrays: dict[str, Any]) -> int:
    counts = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            problem(
                f"arrays for different numbers of examples: {counts}",
                "the same examples in each",
                "pass what the teacher said of them all",
            )
        )
    return next(iter(counts.values()))


def _check_alike(first: Batch, batch: Batch) -> None:
    """Check that a batch brings what the first one brought."""
    brought, before = (
        sorted(one.tensors) + ["keys"] * (one.keys is not None) for one in (batch, first)
    )
    if brought != before:
        raise ValueError(
            problem(
                f"a batch of {brought} after one of {before}",
                "the same in each batch",
                "let each batch bring what the first one brings",
            )
        )


def _leaves(x: Any) -> list[Any]:
    leaves = [] if x is None else keras.tree.flatten(x)
    for leaf in leaves:
        if not _is_array(leaf) or not len(leaf.shape):
            raise TypeError(
                problem(
                    f"x with {leaf!r:.60} of type {type(leaf).__name__} in it",
                    "an array (examples, ...), or a dict or list of such arrays",
                    "pass the examples as students will get them",
                )
            )
    return leaves


def _unexpected(name: str, value: Any) -> TypeError:
    return TypeError(
        problem(
            f"{name} of type {type(value).__name__}",
            _EXPECTED,
            "pass numpy.asarray(...) of it; of a Keras model, use keras_kd.teachers.store",
        )
    )
