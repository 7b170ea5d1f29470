"""Batches of TensorFlow's input pipelines, with what a teacher said of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_kd import _keras
from keras_kd.teachers.stored.augmentation import marks
from keras_kd.teachers.stored.examples import Arrays, check_batched, to_numpy
from keras_kd.teachers.stored.matching import Matching

if TYPE_CHECKING:
    import tensorflow as tf

# What is read from arrays in one call of Python.
_MOST_BATCHES = 16
_MOST_BYTES = 8 << 20


def _as_it_is(*parts: Any) -> tuple:
    return parts


class Pipeline:
    """Puts stored outputs beside examples, a batch after another, ahead of the training.

    Args:
        matching: finds the outputs.
    """

    def __init__(self, matching: Matching) -> None:
        import tensorflow as tf

        self._matching = matching
        decoded = matching.lookup.description.contents.decoded
        self._names = list(decoded)
        self._specs = [tf.TensorSpec((None, *shape), dtype) for dtype, shape in decoded.values()]

    def of_batches(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Joined batches from `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

        Raises:
            ValueError: if they have no key although the store has, or are single examples.
        """
        check_batched(dataset.element_spec)
        x, *_ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
        self._matching.divided(x)
        if self._matching.has_keys:
            return self._with_outputs(dataset, self._matching.divided)
        return self._with_outputs(dataset.scan(np.int64(0), _untraced(self._numbered)))

    def of_arrays(
        self, arrays: Arrays, batch_size: int, shuffle: bool, seed: int | None
    ) -> tf.data.Dataset:
        """Joined batches of arrays, which stay where they are.

        Raises:
            ValueError: if they have no key although the store has.
        """
        import tensorflow as tf

        self._matching.divided(arrays.x)
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
            key, x, others = self._matching.divided(*batch)
            return (places if key is None else key), x, others

        def gather_and_look_up(places: np.ndarray) -> list[np.ndarray]:
            taken = gather(places)
            keys, x, _ = divided(places, taken)
            return [*taken, *self._look_up(keys, *keras.tree.flatten(self._of_student(x)))]

        def at_once(places: Any) -> tuple:
            """One call of Python, which costs as much as reading a batch."""
            found = _keras.call_numpy(gather_and_look_up, [places], [*specs, *self._specs])
            _, x, others = divided(places, found[: len(parts)])
            return self._packed(x, found[len(parts) :], others)

        def taken(places: Any) -> tuple:
            return divided(places, _keras.call_numpy(gather, [places], specs))

        if self._matching.augmentation is not None:
            places = _batches_of_places(arrays.count, batch_size, shuffle, seed)
            return self._with_outputs(places.map(_untraced(taken), tf.data.AUTOTUNE))
        several = batch_size * _batches_at_once(batch_size, parts, self._specs)
        places = _batches_of_places(arrays.count, several, shuffle, seed)
        dataset = places.map(_untraced(at_once), tf.data.AUTOTUNE).rebatch(batch_size)
        count = tf.data.experimental.assert_cardinality(-(-arrays.count // batch_size))
        return dataset.apply(count).prefetch(tf.data.AUTOTUNE)

    def _numbered(self, start: Any, batch: Any) -> tuple:
        """The place of a batch's first example beside it; the state of `scan` and its result."""
        import tensorflow as tf

        _, x, others = self._matching.divided(*keras.utils.unpack_x_y_sample_weight(batch))
        return start + tf.shape(keras.tree.flatten(x)[0], "int64")[0], (start, x, others)

    def _with_outputs(
        self, dataset: tf.data.Dataset, divided: Callable[..., tuple] = _as_it_is
    ) -> tf.data.Dataset:
        """A dataset of joined batches.

        Args:
            dataset: the batches.
            divided: makes of each what `Matching.divided` does, with a key or a place.
        """
        import tensorflow as tf

        def joining(*batch: Any) -> tuple:
            return self._joined(*divided(*batch))

        if self._matching.augmentation is not None:
            # Not in parallel, so that the versions come in the same order each time.
            dataset = dataset.map(_untraced(lambda *batch: self._with_seeds(*divided(*batch))))
            joining = self._joined_augmented
        return dataset.map(_untraced(joining), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _joined(self, keys: Any, x: Any, others: tuple) -> tuple:
        inputs = keras.tree.flatten(self._of_student(x))
        found = _keras.call_numpy(self._look_up, [keys, *inputs], self._specs)
        return self._packed(x, found, others)

    def _with_seeds(self, keys: Any, x: Any, others: tuple) -> tuple:
        import tensorflow as tf

        def following(keys: np.ndarray, first: np.ndarray) -> tuple:
            keys = self._matching.keys(keys, len(first))
            return keys, *self._matching.following(keys)

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
            return list(self._matching.look_up(keys, list(inputs), versions, told).values())

        inputs = keras.tree.flatten(self._of_student(x))
        x = self._matching.augmentation(x, seeds)
        told = marks(self._of_student(x))
        found = _keras.call_numpy(look_up, [keys, versions, told, *inputs], self._specs)
        return self._packed(x, found, others)

    def _look_up(self, keys: np.ndarray, *inputs: np.ndarray) -> list[np.ndarray]:
        return list(self._matching.look_up(keys, list(inputs)).values())

    def _of_student(self, x: Any) -> Any:
        return self._matching.of_student(x)

    def _packed(self, x: Any, found: list[Any], others: tuple) -> tuple:
        arrays = dict(zip(self._names, found, strict=True))
        return self._matching.with_source(self._of_student(x), arrays, others)


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


def _batches_at_once(batch_size: int, parts: list[np.ndarray], outputs: list[Any]) -> int:
    example = sum(part[:1].nbytes for part in parts)
    said = sum(math.prod(spec.shape[1:]) * spec.dtype.size for spec in outputs)
    return int(np.clip(_MOST_BYTES // (batch_size * (example + said)), 1, _MOST_BATCHES))


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
