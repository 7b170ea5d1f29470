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
        self._visits = Visits(lookup.examples, description.versions)

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
        return self._with_outputs(dataset.scan(np.int64(0), _untraced(self._numbered)))

    def batch(self, batch: Any, position: int, version: int | None = None) -> tuple:
        """A batch of arrays with its outputs.

        Args:
            batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
            position: of its first example, where there are no keys.
            version: of all of its examples; `None`: the next one of each.
        """
        x, *others = keras.utils.unpack_x_y_sample_weight(batch)
        key, x = self._division(x)
        inputs = keras.tree.flatten(self._division.inputs.of_student(x))
        keys = self._positions(position, len(inputs[0])) if key is None else np.asarray(key)
        told = None
        if self.augmentation is not None:
            versions, seeds = self._next(keys, version)
            x = self.augmentation(to_numpy(x), seeds)
            told = marks(self._division.inputs.of_student(x)).numpy()
            x = keras.tree.map_structure(np.asarray, x)
        else:
            versions = 0
        arrays = self.lookup.checked(keys, inputs if self._verify else None, versions, told)
        return joined(self._division.inputs.of_student(x), arrays), *_present(*others)

    def _of_iterable(self, batches: Iterable) -> Iterator[tuple]:
        position = 0
        for batch in batches:
            result = self.batch(batch, position)
            position += len(keras.tree.flatten(result[0])[0])
            yield result

    def _of_arrays(self, arrays: Arrays, batch_size: int, shuffle: bool, seed: int | None) -> Any:
        import tensorflow as tf

        own = tuple(_without_lists(part) for part in arrays)
        flat = [part for part in keras.tree.flatten(own) if part is not None]
        specs = [_spec(part) for part in flat]

        def gather(places: np.ndarray) -> list[np.ndarray]:
            return [_as_tensorflow_takes(to_numpy(part[places])) for part in flat]

        def take(places: tf.Tensor) -> tuple:
            taken = iter(_keras.call_numpy(gather, [places], specs))
            x, *others = keras.tree.map_structure(
                lambda part: None if part is None else next(taken), own
            )
            key, x = self._division(x)
            return (places if key is None else key), x, _present(*others)

        places = _batches_of_places(arrays.count, batch_size, shuffle, seed)
        parallel = {"num_parallel_calls": tf.data.AUTOTUNE}
        return self._with_outputs(places.map(_untraced(take), **parallel))

    def _numbered(self, start: Any, *batch: Any) -> tuple:
        """The keys of a batch, its inputs, and the rest; one state of `scan` to the next."""
        import tensorflow as tf

        # A dataset of pairs gives them as one argument here, another as it is.
        x, *others = keras.utils.unpack_x_y_sample_weight(*batch)
        key, x = self._division(x)
        count = tf.shape(keras.tree.flatten(x)[0], out_type="int64")[0]
        if key is None:
            key = start + tf.range(count)
            if self._verify:
                # The data may begin again, which their fingerprints must confirm.
                key %= self.lookup.examples
        return start + count, (key, x, _present(*others))

    def _with_outputs(self, dataset: Any) -> Any:
        """A dataset of joined batches from one of keys, inputs and the rest."""
        import tensorflow as tf

        if self.augmentation is not None:
            # Not in parallel, so that the versions come in the same order each time.
            dataset = dataset.map(_untraced(self._with_seeds))
        return dataset.map(_untraced(self._joined), num_parallel_calls=tf.data.AUTOTUNE).prefetch(
            tf.data.AUTOTUNE
        )

    def _with_seeds(self, keys: Any, x: Any, others: Any) -> tuple:
        import tensorflow as tf

        specs = [tf.TensorSpec((None,), "int64"), tf.TensorSpec((None, 2), "int32")]
        return keys, x, others, *_keras.call_numpy(self._next, [keys], specs)

    def _joined(self, keys: Any, x: Any, others: Any, versions: Any = None, seeds: Any = None):
        import tensorflow as tf

        of_student = self._division.inputs.of_student
        inputs = keras.tree.flatten(of_student(x)) if self._verify else []
        augmented = [] if seeds is None else [versions]
        if seeds is not None:
            x = self.augmentation(x, seeds)
            augmented.append(marks(of_student(x)))

        def look_up(keys: np.ndarray, *parts: np.ndarray) -> list[np.ndarray]:
            inputs = list(parts[len(augmented) :]) if self._verify else None
            arrays = self.lookup.checked(keys, inputs, *parts[: len(augmented)])
            return list(arrays.values())

        decoded = self.lookup.description.contents.decoded
        specs = [tf.TensorSpec((None, *shape), dtype) for dtype, shape in decoded.values()]
        outputs = _keras.call_numpy(look_up, [keys, *augmented, *inputs], specs)
        return joined(of_student(x), dict(zip(decoded, outputs, strict=True))), *others

    def _next(self, keys: np.ndarray, version: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The versions of these examples that come next, and their seeds."""
        if version is None:
            versions = self._visits.next_versions(self.lookup.rows(keys))
        else:
            versions = np.full(len(keys), version % self.lookup.description.versions)
        integers = self.lookup.keys.to_integers(keys)
        return versions, self.augmentation.seeds(integers, versions)

    def _positions(self, first: int, count: int) -> np.ndarray:
        positions = first + np.arange(count)
        return positions % self.lookup.examples if self._verify else positions


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
        if self._size is None:
            # All batches but the last have the size of the first; fingerprints will tell.
            self._size = _size(self._dataset[0])
        return self._joining.batch(self._dataset[index], index * self._size, self._epoch)

    def on_epoch_begin(self) -> None:
        """Tell the dataset."""
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tell the dataset, and go on to the next versions."""
        self._dataset.on_epoch_end()
        self._epoch += 1


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


def _untraced(function: Callable) -> Callable:
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def _present(y: Any, sample_weight: Any) -> tuple:
    """What a batch has beside its inputs."""
    if sample_weight is not None:
        return y, sample_weight
    return () if y is None else (y,)


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
