"""Stores of outputs that were computed elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _logits
from keras_kd._checks import check_choice, check_integer, problem
from keras_kd.teachers.stored.contents import Contents, Description
from keras_kd.teachers.stored.examples import Batch, to_numpy
from keras_kd.teachers.stored.identity import Keys
from keras_kd.teachers.stored.sink import Sink
from keras_kd.teachers.stored.storing import LOGITS, About, Selection

_EXPECTED = (
    "an array (examples, ...), a dict of such arrays, or an iterable of batches of these or of "
    "pairs (keys, batch)"
)
ACTIVATIONS = ("softmax", "sigmoid")
# The least normal number of float32. Its logarithm, -87, is a logit that float16 holds and that
# leaves enough of the 255 steps of uint8 to the others.
FLOOR = float(np.finfo("float32").tiny)


def store_outputs(
    predictions: Predictions,
    path: str | os.PathLike,
    form: Callable[[list[str]], Selection],
    *,
    key: str,
    activation: str | None,
    name: str,
) -> None:
    """Store outputs that were computed elsewhere; see `StoredTeacher.from_outputs`.

    Args:
        predictions: the outputs.
        path: the store.
        form: makes of the names of outputs and layers how they are stored.
        key: the entry of the student's data that will be the key.
        activation: what made probabilities of logits, or `None` for logits.
        name: the teacher's name.

    Raises:
        OSError: if the disk is full.
        ValueError: if something cannot be stored, or there is another store at `path`.
    """
    if activation is not None:
        check_choice("activation", activation, ACTIVATIONS)
    batches = iter(predictions)
    first = next(batches)
    if activation is None and LOGITS in first.outputs:
        check_logits(first.outputs[LOGITS])
    _check_names(first.outputs)
    description = Description(
        _contents(first, activation, form(list(first.outputs))),
        teacher=name,
        key_kind="position" if first.key is None else Keys.of(first.key).kind,
        key_name=None if first.key is None else key,
        has_fingerprints=predictions.has_x,
    )
    # If this batch cannot be stored, no file has been made yet.
    records = description.packed(_tensors(first, activation, 0))
    with Sink(path, description, predictions.total) as sink:
        _check_same(sink, records)
        for batch in chain([first], batches):
            if not sink.skip(batch.count, batch.x, batch.key):
                tensors = _tensors(batch, activation, sink.position)
                sink.add(tensors, batch.x, batch.key)
        sink.finish()


def _contents(first: Batch, activation: str | None, selection: Selection) -> Contents:
    """How the tensors of the first batch, and of all that follow, are stored."""
    shapes = {name: array.shape[1:] for name, array in first.outputs.items()}
    features = {name: selection.feature(name, shapes[name]) for name in selection.layers}
    if not selection.has_outputs:
        return Contents(None, features)
    about = About(activation, activation is None, shares=None, known=None)
    return Contents(selection.output(LOGITS, shapes[LOGITS], about), features)


def _check_names(tensors: dict[str, np.ndarray]) -> None:
    """Check the name and the form of the teacher's output."""
    for name in tensors:
        if name != LOGITS and get_close_matches(name.casefold(), [LOGITS], cutoff=0.9):
            raise problem(
                f"outputs[{name!r}], which would be a layer of this name",
                f"{LOGITS!r} for the teacher's output",
                f"call it {LOGITS!r}",
            )
    output = tensors.get(LOGITS)
    if output is not None and output.ndim < 2:
        raise problem(
            f"one number for each example, an array of the shape {output.shape}",
            "the logits of all classes, (examples, classes)",
            "pass the logits from before the largest was chosen; of one output unit, "
            "outputs[:, None]",
        )


def _tensors(batch: Batch, activation: str | None, first_example: int) -> dict[str, np.ndarray]:
    """The arrays of a batch as they are stored."""
    if activation is None or LOGITS not in batch.outputs:
        return batch.outputs
    logits = logits_of(batch.outputs[LOGITS], activation, first_example)
    return {**batch.outputs, LOGITS: logits}


def _check_same(sink: Sink, records: np.ndarray) -> None:
    """Check that a store that is there begins with the same predictions.

    Raises:
        ValueError: if it does not.
    """
    count = min(sink.examples_there, len(records))
    if b"".join(sink.records.read(np.arange(count)).outputs) == records[:count].tobytes():
        return
    raise problem(
        f"other predictions than those with which the store {str(sink.path)!r} begins",
        "the same predictions in the same order, to complete it",
        "pass what it was begun with, or another path",
    )


class Predictions:
    """Iterates over batches of a teacher's outputs.

    Args:
        outputs: as in `StoredTeacher.from_outputs`.
        x: the examples in the same order, an array or a structure of arrays, or `None`.
        keys: an array of their keys, or `None`.
        batch_size: into how many examples arrays are cut.

    Attributes:
        total: how many examples there are; `None` where that shows at the end only.
        has_x: whether the examples themselves are given.

    Raises:
        TypeError: if the outputs are none of what is expected.
        ValueError: if the lengths differ, or names are missing.
    """

    def __init__(self, outputs: Any, x: Any, keys: Any, batch_size: int) -> None:
        check_integer("batch_size", batch_size, at_least=1, fix="leave it out for 256")
        self.has_x = x is not None
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
            # A stream may end in an empty batch.
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
            raise problem("keys=... and pairs (keys, batch)", "one of them", "leave out keys=...")
        x = self._x
        if x is not None:
            x = to_numpy(keras.tree.map_structure(lambda array: array[part], x))
        outputs = {name: _numbers(name, array) for name, array in arrays.items()}
        return Batch(x, key=None if keys is None else np.asarray(keys), outputs=outputs)

    def _check_lengths(self, examples: int) -> None:
        """Check that all that was given is about as many examples."""
        for length in self._known_lengths:
            if length != examples:
                raise problem(
                    f"predictions of {examples} examples, and x or keys of {length}",
                    "one prediction for each example, in the same order",
                    "pass the x and the keys that the predictions are of",
                )
        if not examples:
            raise problem("no predictions", "at least one", "pass the teacher's predictions")


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
        raise problem(
            f"{name!r} of type {array.dtype}",
            "numbers",
            "pass the teacher's outputs as floats",
            kind=TypeError,
        )
    return array


def _count(arrays: dict[str, Any]) -> int:
    counts = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise problem(
            f"arrays for different numbers of examples: {counts}",
            "the same examples in each",
            "pass the outputs for all of them",
        )
    return next(iter(counts.values()))


def _check_alike(first: Batch, batch: Batch) -> None:
    """Check that a batch brings what the first one brought."""
    brought, before = (
        sorted(one.outputs) + ["keys"] * (one.key is not None) for one in (batch, first)
    )
    if brought != before:
        raise problem(
            f"a batch of {brought} after one of {before}",
            "the same in each batch",
            "give each batch the same entries as the first",
        )


def _leaves(x: Any) -> list[Any]:
    leaves = [] if x is None else keras.tree.flatten(x)
    for leaf in leaves:
        if not _is_array(leaf) or not len(leaf.shape):
            raise problem(
                f"x with {leaf!r:.60} of type {type(leaf).__name__} in it",
                "an array (examples, ...), or a dict or list of such arrays",
                "pass the examples as students will get them",
                kind=TypeError,
            )
    return leaves


def _unexpected(name: str, value: Any) -> TypeError:
    return problem(
        f"{name} of type {type(value).__name__}",
        _EXPECTED,
        "pass numpy.asarray(...) of it; a Keras model is for StoredTeacher.create",
        kind=TypeError,
    )


def logits_of(probabilities: np.ndarray, activation: str, first_example: int = 0) -> np.ndarray:
    """The logits behind these probabilities.

    For a softmax they are log p, which differs from the logits of the model by a number for each
    row: no softmax sees it, at any temperature. For a sigmoid they are log p - log(1 - p). What is
    below 1.2e-38, such as a probability of 0, counts as 1.2e-38, a logit of -87.3.

    Args:
        probabilities: shape (examples, ..., classes).
        activation: `"softmax"` or `"sigmoid"`.
        first_example: the number of the first of them, for messages.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: if no such activation gives these numbers.
    """
    values = np.asarray(probabilities).astype("float64")
    if activation == "softmax":
        possible = ops.convert_to_numpy(_logits.distribution_like(values))
        expected = "rows from 0 to 1 with the sum 1"
    else:
        possible = (values >= 0) & (values <= 1)
        expected = "numbers from 0 to 1"
    if not possible.all():
        wrong = ~possible.reshape(len(values), -1).all(axis=-1)
        raise problem(
            f"predictions for example {first_example + int(np.argmax(wrong))} that no "
            f"{activation} gives",
            expected,
            "leave out the activation if they are logits"
            + (", or pass 'sigmoid' if the classes are independent" * (activation == "softmax")),
        )
    logits = _log(values) if activation == "softmax" else _log(values) - _log(1.0 - values)
    return logits.astype("float32")


def check_logits(logits: np.ndarray) -> None:
    """Refuse a batch of logits all of whose rows are distributions.

    Raises:
        ValueError: if they are: from softened probabilities the student learns almost nothing.
    """
    values = np.asarray(logits)
    if values.ndim < 2 or values.shape[-1] < 2 or not len(values):
        return
    if ops.convert_to_numpy(_logits.distribution_like(values)).all():
        raise problem(
            "predictions that look like probabilities: no number below 0, and each row has "
            "the sum 1",
            "logits; with a temperature applied to probabilities the student learns almost nothing",
            "pass activation='softmax', or --probabilities on the command line, and their "
            "logits are stored. If these are logits, subtract 1 from all of them, which "
            "changes no probability",
        )


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, FLOOR))
