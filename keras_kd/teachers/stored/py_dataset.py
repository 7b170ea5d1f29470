"""Batches by number, with what a teacher said of them."""

from __future__ import annotations

from typing import Any

import keras

from keras_kd._checks import problem
from keras_kd.teachers.stored.examples import size_of
from keras_kd.teachers.stored.matching import Matching


class JoinedPyDataset(keras.utils.PyDataset):
    """Another dataset's batches with what a teacher said of them; the same workers read them.

    Of augmented examples all get the next version in each epoch, also those that come twice in one.

    Args:
        dataset: the dataset.
        matching: finds the outputs.

    Raises:
        ValueError: if processes would have to augment examples, which only threads can.
    """

    def __init__(self, dataset: keras.utils.PyDataset, matching: Matching) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        if dataset.use_multiprocessing and matching.augmentation is not None:
            raise ValueError(
                problem(
                    "a PyDataset with use_multiprocessing=True for augmented examples",
                    "workers that are threads: TensorFlow, which augments them, does not survive "
                    "being forked",
                    "pass use_multiprocessing=False",
                )
            )
        self._dataset = dataset
        self._matching = matching
        self._epoch = -1
        self._size: int | None = None

    @property
    def num_batches(self) -> int | None:
        """How many batches there are."""
        return self._dataset.num_batches

    def __len__(self) -> int:
        """How many batches there are."""
        return self._dataset.num_batches

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """A batch with its outputs."""
        place = 0 if self._matching.has_keys else index * self._size_of_first()
        return self._matching.batch(self._dataset[index], place, max(0, self._epoch))

    def on_epoch_begin(self) -> None:
        """Tell the dataset, and go on to the next versions."""
        self._dataset.on_epoch_begin()
        self._epoch += 1

    def on_epoch_end(self) -> None:
        """Tell the dataset; `fit` also does so when it has looked at the first batches."""
        self._dataset.on_epoch_end()

    def _size_of_first(self) -> int:
        """The size of all batches but the last; if it is not, fingerprints will tell."""
        if self._size is None:
            self._size = size_of(self._dataset[0])
        return self._size
