"""Datasets of batches as arrays, for what looks at all examples at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd._limits import free_bytes
from keras_kd._progress import Progress
from keras_kd.teachers.stored.examples import (
    batches_of,
    is_py_dataset,
    number_of_examples,
    size_of,
    to_numpy,
)


def is_dataset(data: Any) -> bool:
    """Whether data are batches to iterate over, and no arrays."""
    arrays = isinstance(data, tuple | list | Mapping | str | bytes) or hasattr(data, "shape")
    return is_py_dataset(data) or (isinstance(data, Iterable) and not arrays)


def to_arrays(dataset: Any, *, sort: bool = False, name: str = "dataset") -> tuple[Any, Any]:
    """Read all examples of a dataset into memory.

    Args:
        dataset: batches (x, y): a `tf.data.Dataset`, a `keras.utils.PyDataset`, a DataLoader of
            PyTorch, or another iterable with an end.
        sort: whether the examples are put into an order that depends on their contents alone, so
            that a dataset that shuffles gives the same arrays each time. Random augmentation in it
            gives others.
        name: of the argument, for messages.

    Returns:
        (x, y): arrays of shape (examples, ...), in the structures of the batches' x and y.

    Raises:
        TypeError: if it is no dataset, or a part is sparse or ragged.
        ValueError: if it is not batched, is empty, has no labels, has sample weights, has no end,
            or does not fit into the free memory.

    Example:
        >>> import tensorflow as tf
        >>> dataset = tf.data.Dataset.from_tensor_slices(([[1.0], [2.0]], [0, 1])).batch(1)
        >>> x, y = keras_kd.data.to_arrays(dataset)
        >>> x.shape, y.shape
        ((2, 1), (2,))
    """
    if not is_dataset(dataset):
        raise problem(
            f"{name} of type {type(dataset).__name__}",
            "a tf.data.Dataset, a keras.utils.PyDataset or another iterable of batches (x, y)",
            "pass such a dataset; arrays need no reading",
            kind=TypeError,
        )
    number_of_examples(dataset)
    batches = _read(dataset, name)
    if not batches:
        raise problem(f"{name} without an example", "at least one batch", "pass data with examples")
    x, y = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
    if not sort:
        return x, y
    order = _order(keras.tree.flatten((x, y)))
    return keras.tree.map_structure(lambda part: part[order], (x, y))


def _read(dataset: Any, name: str) -> list[tuple[Any, Any]]:
    # All of it is there twice when the batches are put together.
    most = free_bytes() // 3
    batches, taken = [], 0
    with Progress(f"Reading {name}") as progress:
        for batch in batches_of(dataset, 1):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
            if y is None or weight is not None:
                raise problem(
                    f"{name} {'without labels' if y is None else 'with sample weights'}",
                    "batches (x, y)",
                    "give labels, as with dataset.map(lambda each: (each['image'], each['label']))"
                    if y is None
                    else "leave the weights out: dataset.map(lambda x, y, weight: (x, y))",
                )
            x, y = to_numpy((x, y))
            batches.append((x, y))
            taken += sum(part.nbytes for part in keras.tree.flatten((x, y)))
            if taken > most:
                raise problem(
                    f"{name} of more than {taken / 2**30:.1f} GiB",
                    f"examples for which the free memory is enough ({3 * most / 2**30:.1f} GiB)",
                    "pass fewer batches, as with dataset.take(1000)",
                )
            progress.advance(size_of((x, y)))
    return batches


def _order(parts: list[np.ndarray]) -> np.ndarray:
    digests = [
        hashlib.blake2b(b"".join(part[place].tobytes() for part in parts), digest_size=16).digest()
        for place in range(len(parts[0]))
    ]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__))
