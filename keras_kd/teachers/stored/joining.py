"""What a teacher said, beside each example, in the input pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_kd import _keras
from keras_kd._checks import problem
from keras_kd.teachers.joined import joined
from keras_kd.teachers.stored.augmentation import Augmentation, Visits, marks
from keras_kd.teachers.stored.examples import (
    Arrays,
    Division,
    as_arrays,
    is_py_dataset,
    is_tf_dataset,
    to_numpy,
)
from keras_kd.teachers.stored.lookup import Lookup

_USUAL_BATCH_SIZE = 32
# What is read from arrays in one call of Python.
_MOST_BATCHES = 16
_MOST_BYTES = 8 << 20


def _as_it_is(*parts: Any) -> tuple:
    return parts


class Joining:
    """Puts stored outputs beside examples.

    Args:
        lookup: where they are found.
        augmentation: how the examples were augmented, or `None`.
        verify: whether the examples' fingerprints are compared.
        key: the entry of dict inputs that is the key; `None`: the one that the store tells.
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

    def join(self, dataset: Any, batch_size: int | None, shuffle: bool, seed: int | None) -> Any:
        """The dataset with the outputs; see `StoredTeacher.join`."""
        arrays = as_arrays(dataset)
        if arrays is not None:
            self._division(arrays.x)
            return self._of_arrays(arrays, batch_size or _USUAL_BATCH_SIZE, shuffle, seed)
        if batch_size is not None and not is_tf_dataset(dataset):
            raise ValueError(
                problem(
                    f"batch_size={batch_size} for batches from a {type(dataset).__name__}",
                    "the batches as they come",
                    "leave out batch_size, or pass arrays or a tf.data.Dataset",
                )
            )
        if is_py_dataset(dataset):
            return JoinedPyDataset(dataset, self)
        if not is_tf_dataset(dataset):
            return self._of_iterable(dataset)
        x, *_ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
        self._division(x)
        if batch_size is not None:
            dataset = dataset.rebatch(batch_size)
        if self.has_keys:
            return self._with_outputs(dataset, self._divided)
        return self._with_outputs(dataset.scan(np.int64(0), _untraced(_numbered)), self._placed)

    def batch(self, batch: Any, position: int, version: int | None = None) -> tuple:
        """A batch of arrays with its outputs.

        Args:
            batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
            position: of its first example, where there are no keys.
            version: of all of its examples; `None`: the next one of each.
        """
        key, x, others = self._divided(batch)
        of_student = self._division.inputs.of_student
        inputs = keras.tree.flatten(of_student(x))
        keys = self._keys(np.int64(position) if key is None else np.asarray(key), len(inputs[0]))
        if self.augmentation is None:
            return joined(of_student(x), self._look_up(keys, inputs)), *others
        versions, seeds = self._next(keys, version)
        augmented = self.augmentation(to_numpy(x), seeds)
        told = marks(of_student(augmented)).numpy()
        augmented = keras.tree.map_structure(np.asarray, of_student(augmented))
        return joined(augmented, self._look_up(keys, inputs, versions, told)), *others

    def _of_iterable(self, batches: Iterable) -> Iterator[tuple]:
        position = 0
        for batch in batches:
            yield self.batch(batch, position)
            position += _size(batch)

    def _of_arrays(self, arrays: Arrays, batch_size: int, shuffle: bool, seed: int | None) -> Any:
        import tensorflow as tf

        structure = tuple(_without_lists(part) for part in arrays)
        parts = [part for part in keras.tree.flatten(structure) if part is not None]
        specs = [_spec(part) for part in parts]

        def gather(places: np.ndarray) -> list[np.ndarray]:
            return [_as_tensorflow_takes(to_numpy(part[places])) for part in parts]

        def divided(places: Any, taken: list[Any]) -> tuple:
            each = iter(taken)
            batch = keras.tree.map_structure(
                lambda part: None if part is None else next(each), structure
            )
            key, x, others = self._divided(batch)
            return (places if key is None else key), x, others

        def gather_and_look_up(places: np.ndarray) -> list[np.ndarray]:
            taken = gather(places)
            keys, x, _ = divided(places, taken)
            inputs = keras.tree.flatten(self._division.inputs.of_student(x))
            return [*taken, *self._look_up(keys, inputs).values()]

        def at_once(places: Any) -> tuple:
            """One call of Python, which costs as much as reading a batch."""
            found = _keras.call_numpy(gather_and_look_up, [places], [*specs, *self._specs])
            _, x, others = divided(places, found[: len(parts)])
            return self._packed(x, found[len(parts) :], others)

        def taken(places: Any) -> tuple:
            return divided(places, _keras.call_numpy(gather, [places], specs))

        if self.augmentation is not None:
            places = _batches_of_places(arrays.count, batch_size, shuffle, seed)
            return self._with_outputs(places.map(_untraced(taken), tf.data.AUTOTUNE))
        several = batch_size * _batches_at_once(batch_size, parts)
        places = _batches_of_places(arrays.count, several, shuffle, seed)
        dataset = places.map(_untraced(at_once), tf.data.AUTOTUNE).rebatch(batch_size)
        count = tf.data.experimental.assert_cardinality(-(-arrays.count // batch_size))
        return dataset.apply(count).prefetch(tf.data.AUTOTUNE)

    def _with_outputs(self, dataset: Any, divided: Callable = _as_it_is) -> Any:
        """A dataset of joined batches.

        Args:
            dataset: the batches.
            divided: makes of each what `_divided` does.
        """
        import tensorflow as tf

        if self.augmentation is None:
            function = lambda *batch: self._joined(*divided(*batch))  # noqa: E731
        else:
            # Not in parallel, so that the versions come in the same order each time.
            dataset = dataset.map(_untraced(lambda *batch: self._with_seeds(*divided(*batch))))
            function = self._joined_augmented
        return dataset.map(_untraced(function), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _divided(self, *batch: Any) -> tuple:
        """The key of a batch, its inputs, and what it has beside them."""
        # A dataset of pairs gives them as two arguments, another what it has as one.
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
            batch if len(batch) > 1 else batch[0]
        )
        key, x = self._division(x)
        if sample_weight is not None:
            return key, x, (y, sample_weight)
        return key, x, () if y is None else (y,)

    def _placed(self, start: Any, batch: Any) -> tuple:
        _, x, others = self._divided(batch)
        return start, x, others

    def _keys(self, keys: np.ndarray, count: int) -> np.ndarray:
        """The keys of a batch; of the place of its first example those of all."""
        if keys.ndim:
            return keys
        places = keys + np.arange(count)
        # The data may begin again, which their fingerprints must confirm.
        return places % self.lookup.examples if self._verify else places

    def _next(self, keys: np.ndarray, version: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The versions of these examples that come next, and their seeds."""
        if version is None:
            versions = self._visits.next_versions(self.lookup.rows(keys))
        else:
            versions = np.full(len(keys), version % self.lookup.description.versions)
        return versions, self.augmentation.seeds(self.lookup.integers(keys), versions)

    def _look_up(
        self, keys: np.ndarray, inputs: list[np.ndarray], versions: Any = 0, told: Any = None
    ) -> dict[str, np.ndarray]:
        keys = self._keys(keys, len(inputs[0]))
        return self.lookup.checked(keys, inputs if self._verify else None, versions, told)

    def _joined(self, keys: Any, x: Any, others: tuple) -> tuple:
        def look_up(keys: np.ndarray, *inputs: np.ndarray) -> list[np.ndarray]:
            return list(self._look_up(keys, list(inputs)).values())

        inputs = keras.tree.flatten(self._division.inputs.of_student(x))
        found = _keras.call_numpy(look_up, [keys, *inputs], self._specs)
        return self._packed(x, found, others)

    def _with_seeds(self, keys: Any, x: Any, others: tuple) -> tuple:
        import tensorflow as tf

        def following(keys: np.ndarray, first: np.ndarray) -> tuple:
            keys = self._keys(keys, len(first))
            return keys, *self._next(keys)

        specs = [
            tf.TensorSpec((None,), keys.dtype),
            tf.TensorSpec((None,), "int64"),
            tf.TensorSpec((None, 2), "int32"),
        ]
        first = keras.tree.flatten(x)[0]
        keys, versions, seeds = _keras.call_numpy(following, [keys, first], specs)
        return keys, x, others, versions, seeds

    def _joined_augmented(
        self, keys: Any, x: Any, others: tuple, versions: Any, seeds: Any
    ) -> tuple:
        def look_up(
            keys: np.ndarray, versions: np.ndarray, told: np.ndarray, *inputs: np.ndarray
        ) -> list[np.ndarray]:
            return list(self._look_up(keys, list(inputs), versions, told).values())

        of_student = self._division.inputs.of_student
        inputs = keras.tree.flatten(of_student(x))
        x = self.augmentation(x, seeds)
        told = marks(of_student(x))
        found = _keras.call_numpy(look_up, [keys, versions, told, *inputs], self._specs)
        return self._packed(x, found, others)

    @property
    def _specs(self) -> list[Any]:
        """What is read for a batch, as tensors without values."""
        import tensorflow as tf

        decoded = self.lookup.description.contents.decoded.values()
        return [tf.TensorSpec((None, *shape), dtype) for dtype, shape in decoded]

    def _packed(self, x: Any, found: list[Any], others: tuple) -> tuple:
        arrays = dict(zip(self.lookup.description.contents.decoded, found, strict=True))
        return joined(self._division.inputs.of_student(x), arrays), *others


class JoinedPyDataset(keras.utils.PyDataset):
    """Another dataset's batches with what a teacher said of them; the same workers read them.

    Of augmented examples all get the next version in each epoch.

    Args:
        dataset: the dataset.
        joining: puts the outputs beside the examples.

    Raises:
        ValueError: if processes would have to augment examples, which only threads can.
    """

    def __init__(self, dataset: keras.utils.PyDataset, joining: Joining) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        if dataset.use_multiprocessing and joining.augmentation is not None:
            raise ValueError(
                problem(
                    "a PyDataset with use_multiprocessing=True for augmented examples",
                    "workers that are threads: TensorFlow, which augments them, does not survive "
                    "being forked",
                    "pass use_multiprocessing=False",
                )
            )
        self._dataset = dataset
        self._joining = joining
        self._epoch = 0
        self._size: int | None = None

    @property
    def num_batches(self) -> int | None:
        """How many batches there are."""
        return self._dataset.num_batches

    def __len__(self) -> int:
        """How many batches there are."""
        return self._dataset.num_batches

    def __getitem__(self, index: int) -> tuple:
        """A batch with its outputs."""
        place = 0 if self._joining.has_keys else index * self._size_of_first()
        return self._joining.batch(self._dataset[index], place, self._epoch)

    def on_epoch_begin(self) -> None:
        """Tell the dataset."""
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the dataset, and go on to the next versions."""
        self._dataset.on_epoch_end()
        self._epoch += 1

    def _size_of_first(self) -> int:
        """The size of all batches but the last; if it is not, fingerprints will tell."""
        if self._size is None:
            self._size = _size(self._dataset[0])
        return self._size


def _batches_of_places(count: int, batch_size: int, shuffle: bool, seed: int | None) -> Any:
    """The numbers of all examples in batches, in another order each time if they are shuffled."""
    import tensorflow as tf

    def shuffled(key: Any) -> Any:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count, dtype="int64"), tf.stack([key, key])
        )
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    if not shuffle:
        return tf.data.Dataset.range(count).batch(batch_size)
    orders = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    batches = orders.flat_map(_untraced(shuffled))
    return batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))


def _batches_at_once(batch_size: int, parts: list[np.ndarray]) -> int:
    size = batch_size * sum(part[:1].nbytes for part in parts)
    return int(np.clip(_MOST_BYTES // size, 1, _MOST_BATCHES))


def _numbered(start: Any, *batch: Any) -> tuple:
    """The place of a batch's first example beside the batch; the state of `scan` and its result."""
    import tensorflow as tf

    batch = batch if len(batch) > 1 else batch[0]
    x, *_ = keras.utils.unpack_x_y_sample_weight(batch)
    return start + tf.shape(keras.tree.flatten(x)[0], "int64")[0], (start, batch)


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


def _size(batch: Any) -> int:
    x, *_ = keras.utils.unpack_x_y_sample_weight(batch)
    return len(keras.tree.flatten(x)[0])
