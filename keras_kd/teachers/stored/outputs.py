"""Stores that are filled with what a teacher has said already, whatever it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, check_integer, problem
from keras_kd.teachers.stored.asking import LOGITS, About, Selection
from keras_kd.teachers.stored.contents import Contents
from keras_kd.teachers.stored.description import Description
from keras_kd.teachers.stored.keys import Keys
from keras_kd.teachers.stored.predictions import Batch, Predictions
from keras_kd.teachers.stored.probabilities import ACTIVATIONS, check_logits, logits_of
from keras_kd.teachers.stored.records import RecordFile
from keras_kd.teachers.stored.sink import Sink
from keras_kd.teachers.stored.teacher import StoredTeacher


def store_outputs(
    outputs: Any,
    path: str | os.PathLike,
    *,
    x: Any = None,
    keys: Any = None,
    key: str = "key",
    top_k: int | None = None,
    dtype: str = "float16",
    temperatures: float | Sequence[float] | None = None,
    activation: str | None = None,
    name: str = "predictions",
    batch_size: int = 256,
) -> StoredTeacher:
    """Write down what a teacher has said, whatever it is.

    If this is interrupted, the same call goes on where it stopped.

    Args:
        outputs: an array of logits, shaped (examples, ..., classes); a dict of arrays, in which
            `"logits"` is the teacher's output and every other name that of a layer, whose features
            it has; or an iterable of batches of either, or of pairs `(keys, batch)`. What can be
            sliced, such as a memory-mapped array, is read batch by batch.
        path: the directory of the store.
        x: the examples of which these are the predictions, in the same order and as students will
            get them: an array, or a structure of arrays. A wrong pairing is then noticed later by a
            fingerprint of each example; without `x`, `StoredTeacher.join` can only check keys.
        keys: a key for each example, integers or texts; `None`: its position.
        key: the entry of the student's data that will be the key.
        top_k: as in `store`.
        dtype: as in `store`.
        temperatures: as in `store`.
        activation: `None` for logits; `"softmax"` or `"sigmoid"` where the predictions are
            probabilities. Their logits are stored, see `probabilities.logits_of`; a probability of
            0 counts as 1.2e-38.
        name: the teacher's name, for messages.
        batch_size: how many examples of arrays are read at once.

    Returns:
        The stored teacher, for a Distiller.

    Raises:
        OSError: if the disk is full; what was written before is valid.
        TypeError: if the outputs are none of these.
        ValueError: if something cannot be stored, the lengths differ, logits look like
            probabilities, or there is another store at `path`.
    """
    if activation is not None:
        check_choice("activation", activation, ACTIVATIONS)
    check_integer("batch_size", batch_size, at_least=1, fix="leave it out for 256")
    predictions = Predictions(outputs, x, keys, batch_size)
    batches = iter(predictions)
    first = next(batches)
    if activation is None and LOGITS in first.tensors:
        check_logits(first.tensors[LOGITS])
    contents = _contents(first, activation, top_k, dtype, temperatures)
    # If this batch cannot be stored, nothing has been made yet.
    fields = contents.encode(_tensors(first, activation, 0))
    description = Description(
        contents,
        teacher=name,
        key_kind="position" if first.keys is None else Keys.of(first.keys).kind,
        key_name=None if first.keys is None else key,
        has_fingerprints=x is not None,
    )
    with Sink(path, description, predictions.total) as sink:
        _check_same(sink, fields)
        for batch in chain([first], batches):
            if not sink.skip(batch.count, batch.x, batch.keys):
                tensors = _tensors(batch, activation, sink.position)
                sink.add(tensors, batch.x, batch.keys)
        sink.finish()
    return StoredTeacher(path)


def _contents(
    first: Batch,
    activation: str | None,
    top_k: int | None,
    dtype: str,
    temperatures: float | Sequence[float] | None,
) -> Contents:
    """How the tensors of the first batch, and of all that follow, are stored."""
    _check_names(first.tensors)
    selection = Selection(list(first.tensors), top_k, dtype, temperatures)
    shapes = {name: array.shape[1:] for name, array in first.tensors.items()}
    features = {name: selection.feature(name, shapes[name]) for name in selection.layers}
    if not selection.has_outputs:
        return Contents(None, features)
    about = About(activation, activation is None, shares=None, known=None)
    return Contents(selection.output(LOGITS, shapes[LOGITS], about), features)


def _check_names(tensors: dict[str, np.ndarray]) -> None:
    """Check that what is meant as the teacher's output is one, and called so."""
    for name in tensors:
        if name != LOGITS and get_close_matches(name.casefold(), [LOGITS], cutoff=0.9):
            raise ValueError(
                problem(
                    f"outputs[{name!r}], which would be a layer of this name",
                    f"{LOGITS!r} for the teacher's output",
                    f"call it {LOGITS!r}",
                )
            )
    output = tensors.get(LOGITS)
    if output is not None and output.ndim < 2:
        raise ValueError(
            problem(
                f"one number for each example, an array of the shape {output.shape}",
                "the logits of all classes, (examples, classes)",
                "pass what the teacher said before the largest was chosen; of one output unit, "
                "outputs[:, None]",
            )
        )


def _tensors(batch: Batch, activation: str | None, first_example: int) -> dict[str, np.ndarray]:
    """The arrays of a batch as they are stored."""
    if activation is None or LOGITS not in batch.tensors:
        return batch.tensors
    logits = logits_of(batch.tensors[LOGITS], activation, first_example)
    return {**batch.tensors, LOGITS: logits}


def _check_same(sink: Sink, fields: dict[str, np.ndarray]) -> None:
    """Check that a store that is there begins with the same predictions.

    Raises:
        ValueError: if it does not.
    """
    count = min(sink.examples_there, len(next(iter(fields.values()))))
    there = RecordFile(sink.path).read(np.arange(count)) if count else None
    if there is None or all(
        np.array_equal(there[name], values[:count]) for name, values in fields.items()
    ):
        return
    raise ValueError(
        problem(
            f"other predictions than those with which the store {str(sink.path)!r} begins",
            "the same predictions in the same order, to go on with it",
            "pass what it was begun with, or another path",
        )
    )
