"""Joining of examples and stored outputs, for all forms of data that `fit` takes."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_kd._backends import call_from_tensorflow, is_tensorflow
from keras_kd._checks import problem
from keras_kd.teachers.stored.augmentation import Visits, marks
from keras_kd.teachers.stored.examples import (
    Batch,
    as_arrays,
    check_batched,
    is_py_dataset,
    is_tf_dataset,
    size_of,
    to_numpy,
)
from keras_kd.teachers.stored.lookup import Lookup

if TYPE_CHECKING:
    import tensorflow as tf

_USUAL_BATCH_SIZE = 32
# What is read from arrays in one call of Python.
_MOST_BATCHES = 16
_MOST_BYTES = 8 << 20
# More of them, augmented one by one, no longer stay in the processor's cache.
_MOST_AUGMENTED = 1024
# Of pipelines that augment, by the part that asks for the versions.
_VISITS: Any = weakref.WeakKeyDictionary()


def join(
    dataset: Any, lookup: Lookup, batch_size: int | None, shuffle: bool, seed: int | None
) -> Any:
    """A dataset with the stored outputs; see `StoredTeacher.join`."""
    arrays = as_arrays(dataset)
    if arrays is not None:
        batch_size = batch_size or _USUAL_BATCH_SIZE
        if not is_tensorflow():
            return JoinedPyDataset(ArrayBatches(arrays, batch_size, shuffle, seed), lookup)
        return Pipeline(lookup).of_arrays(arrays, batch_size, shuffle, seed)
    if is_tf_dataset(dataset):
        batches = dataset if batch_size is None else dataset.rebatch(batch_size)
        return Pipeline(lookup).of_batches(batches)
    if batch_size is not None:
        raise problem(
            f"batch_size={batch_size} for batches from a {type(dataset).__name__}",
            "the batches as they come",
            "leave out batch_size, or pass arrays or a tf.data.Dataset",
        )
    return JoinedPyDataset(dataset, lookup) if is_py_dataset(dataset) else _batches(dataset, lookup)


def _batches(dataset: Iterable, lookup: Lookup) -> Iterator[tuple]:
    position = 0
    for batch in dataset:
        yield lookup.batch(batch, position)
        position += size_of(batch)


def visits_of(part: tf.data.Dataset) -> Visits | None:
    """What counts the versions of augmented examples, if this part of a pipeline does."""
    return _VISITS.get(part)


class Pipeline:
    """Puts stored outputs beside examples, a batch after another, ahead of the training.

    Args:
        lookup: finds the outputs.
    """

    def __init__(self, lookup: Lookup) -> None:
        import tensorflow as tf

        self._lookup = lookup
        decoded = lookup.description.contents.decoded
        self._names = list(decoded)
        self._specs = [tf.TensorSpec((None, *shape), dtype) for dtype, shape in decoded.values()]

    def of_batches(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Joined batches from `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

        Raises:
            ValueError: if they have no key although the store has, or are single examples.
        """
        check_batched(dataset.element_spec)
        self._lookup.divided(dataset.element_spec)
        if self._lookup.description.has_keys:
            return self._with_outputs(dataset, lambda *batch: self._lookup.divided(batch))
        return self._with_outputs(dataset.scan(np.int64(0), _untraced(self._numbered)))

    def of_arrays(
        self, arrays: Batch, batch_size: int, shuffle: bool, seed: int | None
    ) -> tf.data.Dataset:
        """Joined batches of arrays, which stay where they are.

        Raises:
            ValueError: if they have no key although the store has.
        """
        import tensorflow as tf

        structure = tuple(map(_without_lists, (arrays.x, arrays.y, arrays.sample_weight)))
        self._lookup.divided(structure)
        parts = [part for part in keras.tree.flatten(structure) if part is not None]
        specs = [_spec(part) for part in parts]

        def gather(places: np.ndarray) -> list[np.ndarray]:
            return [_as_tensorflow_takes(to_numpy(part[places])) for part in parts]

        def divided(places: Any, taken: list[Any]) -> Batch:
            each = iter(taken)
            batch = self._lookup.divided(
                keras.tree.map_structure(
                    lambda part: None if part is None else next(each), structure
                )
            )
            return batch if batch.key is not None else batch._replace(key=places)

        def gather_and_look_up(places: np.ndarray) -> list[np.ndarray]:
            taken = gather(places)
            batch = divided(places, taken)
            return [*taken, *self._look_up(batch.key, *self._inputs(batch))]

        def at_once(places: Any) -> tuple:
            """One call of Python, which costs as much as reading a batch."""
            found = call_from_tensorflow(gather_and_look_up, [places], [*specs, *self._specs])
            return self._packed(divided(places, found[: len(parts)]), found[len(parts) :])

        def taken(places: Any) -> Batch:
            return divided(places, call_from_tensorflow(gather, [places], specs))

        is_augmented = self._lookup.augmentation is not None
        most = _MOST_AUGMENTED // batch_size if is_augmented else _MOST_BATCHES
        several = batch_size * _batches_at_once(batch_size, parts, self._specs, most)
        places = _batches_of_places(arrays.count, several, shuffle, seed)
        if not is_augmented:
            dataset = places.map(_untraced(at_once), tf.data.AUTOTUNE)
        else:
            dataset = self._with_outputs(places.map(_untraced(taken), tf.data.AUTOTUNE))
        count = tf.data.experimental.assert_cardinality(-(-arrays.count // batch_size))
        return dataset.rebatch(batch_size).apply(count).prefetch(tf.data.AUTOTUNE)

    def _numbered(self, start: Any, batch: Any) -> tuple:
        """A batch with the place of its first example as its key; state and result of `scan`."""
        import tensorflow as tf

        batch = self._lookup.divided(batch)
        count = tf.shape(keras.tree.flatten(batch.x)[0], "int64")[0]
        return start + count, batch._replace(key=start)

    def _with_outputs(
        self, dataset: tf.data.Dataset, divided: Callable[..., Batch] = lambda batch: batch
    ) -> tf.data.Dataset:
        """A dataset of joined batches.

        Args:
            dataset: the batches.
            divided: makes a `Batch` of each, whose key may be the place of its first example.
        """
        import tensorflow as tf

        def plain(*batch: Any) -> tuple:
            return self._joined(divided(*batch))

        joining: Callable[..., tuple] = plain
        if self._lookup.augmentation is not None:
            # Not in parallel, so that the versions come in the same order each time.
            dataset = dataset.map(_untraced(lambda *batch: self._with_seeds(divided(*batch))))
            _VISITS[dataset] = self._lookup.visits
            joining = self._joined_augmented
        return dataset.map(_untraced(joining), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _joined(self, batch: Batch) -> tuple:
        found = call_from_tensorflow(self._look_up, [batch.key, *self._inputs(batch)], self._specs)
        return self._packed(batch, found)

    def _with_seeds(self, batch: Batch) -> tuple:
        import tensorflow as tf

        def following(keys: np.ndarray, count: np.ndarray) -> tuple:
            keys = self._lookup.keys(keys, int(count))
            return keys, *self._lookup.following(keys)

        specs = [
            tf.TensorSpec((None,), batch.key.dtype),
            tf.TensorSpec((None,), "int64"),
            tf.TensorSpec((None, 2), "int32"),
        ]
        count = tf.shape(keras.tree.flatten(batch.x)[0])[0]
        keys, versions, seeds = call_from_tensorflow(following, [batch.key, count], specs)
        return batch._replace(key=keys), versions, seeds

    def _joined_augmented(self, batch: Batch, versions: Any, seeds: Any) -> tuple:
        def look_up(
            keys: np.ndarray, versions: np.ndarray, own_marks: np.ndarray, *inputs: np.ndarray
        ) -> list[np.ndarray]:
            return list(self._lookup.outputs(keys, inputs, versions, own_marks).values())

        augmentation = self._lookup.augmentation
        assert augmentation is not None
        augmented = batch._replace(x=augmentation(batch.x, seeds))
        own_marks = marks(self._lookup.of_student(augmented.x))
        arguments = [batch.key, versions, own_marks, *self._inputs(batch)]
        return self._packed(augmented, call_from_tensorflow(look_up, arguments, self._specs))

    def _look_up(self, keys: np.ndarray, *inputs: np.ndarray) -> list[np.ndarray]:
        return list(self._lookup.outputs(keys, inputs).values())

    def _inputs(self, batch: Batch) -> list[Any]:
        """The leaves of what the student sees."""
        return keras.tree.flatten(self._lookup.of_student(batch.x))

    def _packed(self, batch: Batch, found: list[Any]) -> tuple:
        arrays = dict(zip(self._names, found, strict=True))
        return self._lookup.with_source(self._lookup.of_student(batch.x), arrays, batch)


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays, for backends that read no `tf.data`, in another order in each epoch.

    Args:
        arrays: the examples.
        batch_size: how many in a batch.
        shuffle: whether they are shuffled.
        seed: of the orders; `None` for others each time.
    """

    def __init__(self, arrays: Batch, batch_size: int, shuffle: bool, seed: int | None) -> None:
        super().__init__()
        self._arrays, self._batch_size = arrays, batch_size
        self._random = np.random.default_rng(seed) if shuffle else None
        self._order = np.arange(arrays.count)
        self.on_epoch_begin()

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return -(-self._arrays.count // self._batch_size)

    def on_epoch_begin(self) -> None:
        """Shuffle the examples."""
        if self._random is not None:
            self._order = self._random.permutation(self._arrays.count)

    def places(self, index: int) -> np.ndarray:
        """The numbers of the examples of a batch."""
        return self._order[index * self._batch_size : (index + 1) * self._batch_size]

    def __getitem__(self, index: int) -> tuple:
        """A batch."""
        part = self._arrays.take(self.places(index))
        return to_numpy(part.x), *part.labels


class JoinedPyDataset(keras.utils.PyDataset):
    """Another dataset's batches with a teacher's outputs for them; the same workers read them.

    Of augmented examples all get the next version in each epoch, also those that come twice in one.

    Args:
        dataset: the dataset.
        lookup: finds the outputs.

    Raises:
        ValueError: if processes would have to augment examples, which only threads can.
    """

    def __init__(self, dataset: keras.utils.PyDataset, lookup: Lookup) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        if dataset.use_multiprocessing and lookup.augmentation is not None:
            raise problem(
                "a PyDataset with use_multiprocessing=True for augmented examples",
                "workers that are threads: TensorFlow, which augments them, does not survive "
                "being forked",
                "pass use_multiprocessing=False",
            )
        self._dataset = dataset
        self._lookup = lookup
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
        place: Any = 0
        if not self._lookup.description.has_keys:
            is_of_arrays = isinstance(self._dataset, ArrayBatches)
            place = self._dataset.places(index) if is_of_arrays else index * self._size_of_first()
        return self._lookup.batch(self._dataset[index], place, max(0, self._epoch))

    def on_epoch_begin(self) -> None:
        """Notify the dataset, and continue with the next versions."""
        self._dataset.on_epoch_begin()
        self._epoch += 1

    def on_epoch_end(self) -> None:
        """Notify the dataset; `fit` also does so when it has looked at the first batches."""
        self._dataset.on_epoch_end()

    def _size_of_first(self) -> int:
        """The size of all batches but the last; if it is not, fingerprints show it."""
        if self._size is None:
            self._size = size_of(self._dataset[0])
        return self._size


def _batches_of_places(count: int, batch_size: int, shuffle: bool, seed: int | None) -> Any:
    """The numbers of all examples in batches, in another order each time if they are shuffled."""
    import tensorflow as tf

    random: Any = tf.random

    def shuffled(key: Any) -> Any:
        order = random.experimental.stateless_shuffle(
            tf.range(count, dtype="int64"), tf.stack([key, key])
        )
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    if not shuffle:
        return tf.data.Dataset.range(count).batch(batch_size)
    orders = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    batches = orders.flat_map(_untraced(shuffled))
    return batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def _batches_at_once(
    batch_size: int, parts: list[np.ndarray], outputs: list[Any], most: int
) -> int:
    example = sum(part[:1].nbytes for part in parts)
    of_outputs = sum(math.prod(spec.shape[1:]) * spec.dtype.size for spec in outputs)
    return int(np.clip(_MOST_BYTES // (batch_size * (example + of_outputs)), 1, max(1, most)))


def _untraced(function: Callable) -> Callable:
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def _without_lists(structure: Any) -> Any:
    """`tf.data` makes one tensor of a list."""
    if isinstance(structure, dict):
        return {name: _without_lists(part) for name, part in structure.items()}
    if isinstance(structure, list | tuple):
        return tuple(map(_without_lists, structure))
    return structure


def _spec(part: np.ndarray) -> Any:
    import tensorflow as tf

    example = _as_tensorflow_takes(to_numpy(part[:1]))
    dtype = "string" if example.dtype == object else example.dtype
    return tf.TensorSpec((None, *example.shape[1:]), dtype)


def _as_tensorflow_takes(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind in "SU" else array
