"""What a teacher said, beside each example, in whatever form the examples come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from keras_kd._checks import problem
from keras_kd.teachers.stored.examples import as_arrays, is_py_dataset, is_tf_dataset, size_of
from keras_kd.teachers.stored.matching import Matching
from keras_kd.teachers.stored.pipeline import Pipeline
from keras_kd.teachers.stored.py_dataset import JoinedPyDataset

_USUAL_BATCH_SIZE = 32


def join(
    dataset: Any, matching: Matching, batch_size: int | None, shuffle: bool, seed: int | None
) -> Any:
    """A dataset with the stored outputs; see `StoredTeacher.join`."""
    arrays = as_arrays(dataset)
    if arrays is not None:
        return Pipeline(matching).of_arrays(arrays, batch_size or _USUAL_BATCH_SIZE, shuffle, seed)
    if is_tf_dataset(dataset):
        batches = dataset if batch_size is None else dataset.rebatch(batch_size)
        return Pipeline(matching).of_batches(batches)
    if batch_size is not None:
        raise ValueError(
            problem(
                f"batch_size={batch_size} for batches from a {type(dataset).__name__}",
                "the batches as they come",
                "leave out batch_size, or pass arrays or a tf.data.Dataset",
            )
        )
    if is_py_dataset(dataset):
        return JoinedPyDataset(dataset, matching)
    return _batches(dataset, matching)


def _batches(dataset: Iterable, matching: Matching) -> Iterator[tuple]:
    position = 0
    for batch in dataset:
        yield matching.batch(batch, position)
        position += size_of(batch)
