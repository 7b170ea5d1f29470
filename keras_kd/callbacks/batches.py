"""The training data of `fit` as one endless sequence of batches that can begin at any number."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_kd import _backends
from keras_kd._checks import problem
from keras_kd.teachers.stored.pipeline import visits_of

if TYPE_CHECKING:
    import tensorflow as tf

_USUAL_BATCH_SIZE = 32


class Batches(ABC):
    """Batches in an order that a seed decides, the same in each process.

    Attributes:
        per_epoch: how many batches one pass over the data has; None if it has no end.
        identity: what distinguishes these data from others, as JSON types.
    """

    per_epoch: int | None
    identity: dict[str, Any]

    @abstractmethod
    def dataset(self, first: int, seed: int) -> tf.data.Dataset:
        """All batches from number `first` on, without an end.

        Args:
            first: how many batches to leave out.
            seed: of the order, where this object decides it.
        """

    @abstractmethod
    def sample(self) -> tf.data.Dataset:
        """One batch, of the types of `dataset`; reading it changes nothing."""


def batches_of(
    x: Any, y: Any, sample_weight: Any, batch_size: int | None, shuffle: bool | str
) -> Batches:
    """The data of `fit` by number.

    Raises:
        TypeError: if the data can be read once only, as a generator.
        ValueError: if each reading gives another order.
    """
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        return PipelineBatches(x)
    if isinstance(x, keras.utils.PyDataset) or hasattr(type(x), "on_epoch_end"):
        return NumberedBatches(x, bool(shuffle))
    parts = keras.tree.flatten((x, y, sample_weight))
    if all(part is None or hasattr(part, "shape") for part in parts):
        return ArrayBatches(x, y, sample_weight, batch_size or _USUAL_BATCH_SIZE, shuffle)
    raise problem(
        f"data of type {type(x).__name__} for ResumeTraining",
        "data that can be read from any position: arrays, a tf.data.Dataset or a "
        "keras.utils.PyDataset",
        "make arrays or a tf.data.Dataset of them, for example with "
        "tf.data.Dataset.from_generator(function, output_signature=...)",
        kind=TypeError,
    )


class ArrayBatches(Batches):
    """Arrays, whose order is a function of the seed and the number of the pass.

    Unlike `fit` of Keras 3 after `keras.utils.set_random_seed`, each pass has another order.
    """

    def __init__(
        self, x: Any, y: Any, sample_weight: Any, batch_size: int, shuffle: bool | str
    ) -> None:
        import tensorflow as tf

        given = (x, y, sample_weight)
        while given[-1] is None:
            given = given[:-1]
        self._arrays = keras.tree.map_structure(_tensor, keras.tree.lists_to_tuples(given))
        parts = [part for part in keras.tree.flatten(self._arrays) if part is not None]
        counts = sorted({int(part.shape[0]) if part.shape.rank else 0 for part in parts})
        if len(counts) != 1 or counts == [0]:
            raise problem(
                f"arrays with {counts} examples",
                "the same number in all of them, above 0",
                "give x, y and sample_weight with the examples along the first axis",
            )
        self._count = tf.constant(counts[0], "int64")
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._per_epoch = self.per_epoch = -(-counts[0] // batch_size)
        self.identity = {
            "examples": counts[0],
            "batch_size": batch_size,
            "shuffle": shuffle,
            "arrays": [fingerprint(part) for part in parts],
        }

    def dataset(self, first: int, seed: int) -> tf.data.Dataset:
        """See `Batches`."""
        import tensorflow as tf

        per_epoch, size = tf.constant(self._per_epoch, "int64"), self._batch_size

        @tf.autograph.experimental.do_not_convert
        def batch(number: Any) -> Any:
            epoch, place = number // per_epoch, number % per_epoch
            start = place * size
            indices = tf.range(start, tf.minimum(start + size, self._count))
            if self._shuffle == "batch":
                ends = tf.size(indices, "int64") - 1
                indices = start + _shuffled(indices - start, [seed, number], ends)
            elif self._shuffle:
                indices = _shuffled(indices, [seed, epoch], self._count - 1)
            return keras.tree.map_structure(
                lambda part: None if part is None else tf.gather(part, indices), self._arrays
            )

        numbers = tf.data.Dataset.counter(first)
        return numbers.map(batch, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def sample(self) -> tf.data.Dataset:
        """See `Batches`."""
        return self.dataset(0, 0).take(1)


def _shuffled(indices: Any, seed: list[Any], most: Any) -> Any:
    """The places of indices in an order of 0..most that the seed decides."""
    import tensorflow as tf

    random: Any = tf.random
    return random.experimental.index_shuffle(
        indices, tf.stack([tf.cast(part, "int64") for part in seed]), most
    )


def _tensor(part: Any) -> Any:
    """An array as Keras would hand it to a model."""
    import tensorflow as tf

    if part is None:
        return None
    tensor = part if isinstance(part, tf.Tensor) else tf.convert_to_tensor(np.asarray(part))
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


class NumberedBatches(Batches):
    """A `PyDataset` (or a `Sequence` of tf_keras), read by number."""

    def __init__(self, dataset: Any, shuffle: bool) -> None:
        import tensorflow as tf

        is_py_dataset = isinstance(dataset, keras.utils.PyDataset)
        self.per_epoch = dataset.num_batches if is_py_dataset else len(dataset)
        self._given = dataset
        self._shuffle = shuffle and self.per_epoch is not None
        # Events of epochs come between batches: they need an order in time.
        calls = ("on_epoch_begin", "on_epoch_end")
        self._events = [
            name
            for name in reversed(calls)
            if getattr(type(dataset), name, None) not in (None, getattr(_PLAIN, name))
        ]
        first = dataset[0]
        _check_repeatable(first, dataset[0])
        last = dataset[self.per_epoch - 1] if self.per_epoch else first
        self._structure = keras.tree.map_structure(
            lambda part: None if part is None else 0, keras.tree.lists_to_tuples(first)
        )
        self._specs = [
            tf.TensorSpec(_common(np.shape(one), np.shape(other)), _tensor(one).dtype)
            for one, other in zip(_parts(first), _parts(last), strict=True)
        ]
        self._first = [_tensor(part).numpy() for part in _parts(first)]
        self.identity = {
            "batches": self.per_epoch,
            "shuffle": self._shuffle,
            "first batch": [fingerprint(part) for part in self._first],
        }

    def dataset(self, first: int, seed: int) -> tf.data.Dataset:
        """See `Batches`."""
        import tensorflow as tf

        order, passed = Order(self.per_epoch, seed, self._shuffle), 0

        def read(number: np.ndarray) -> list[np.ndarray]:
            nonlocal passed
            epoch, place = order(int(number))
            while self._events and passed < epoch:
                passed += 1
                for name in self._events:
                    getattr(self._given, name)()
            return [_tensor(part).numpy() for part in _parts(self._given[place])]

        @tf.autograph.experimental.do_not_convert
        def batch(number: Any) -> Any:
            return self._packed(_backends.call_from_tensorflow(read, [number], self._specs))

        if "on_epoch_begin" in self._events:
            self._given.on_epoch_begin()
        workers = 1 if self._events else getattr(self._given, "workers", 1)
        calls = workers if workers > 1 else None
        return tf.data.Dataset.counter(first).map(batch, calls).prefetch(tf.data.AUTOTUNE)

    def sample(self) -> tf.data.Dataset:
        """See `Batches`."""
        import tensorflow as tf

        dataset = tf.data.Dataset.from_generator(
            lambda: [tuple(self._first)], output_signature=tuple(self._specs)
        )
        return dataset.map(lambda *parts: self._packed(parts))

    def _packed(self, parts: Any) -> Any:
        each = iter(parts)
        return keras.tree.map_structure(
            lambda part: None if part is None else next(each), self._structure
        )


_PLAIN = keras.utils.PyDataset


class Order:
    """The order of batches by number, another one in each pass if they are shuffled."""

    def __init__(self, per_epoch: int | None, seed: int, shuffle: bool) -> None:
        self._per_epoch = per_epoch
        self._seed = seed
        self._shuffle = shuffle
        self._known: tuple[int, Any] = (-1, None)

    def __call__(self, number: int) -> tuple[int, int]:
        """The pass and the place in it of a batch."""
        if self._per_epoch is None:
            return 0, number
        epoch, place = divmod(number, self._per_epoch)
        if not self._shuffle:
            return epoch, place
        known, order = self._known
        if known != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._per_epoch)
            self._known = (epoch, order)
        return epoch, int(order[place])


def _check_repeatable(first: Any, again: Any) -> None:
    if [fingerprint(part) for part in _parts(first)] != [
        fingerprint(part) for part in _parts(again)
    ]:
        raise problem(
            "a PyDataset whose batch 0 differs each time it is read",
            "batches that are a function of their number",
            "draw random numbers for a batch from np.random.default_rng([seed, epoch, number]), "
            "and count epochs in on_epoch_end; or let layers of the student draw them",
        )


def _parts(batch: Any) -> list[Any]:
    return [part for part in keras.tree.flatten(batch) if part is not None]


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> list[int | None]:
    """The shape of batches, without what differs; the size of a batch can always differ."""
    if len(one) != len(other):
        return [None] * len(one)
    return [None, *(a if a == b else None for a, b in zip(one[1:], other[1:], strict=True))]


class PipelineBatches(Batches):
    """A `tf.data.Dataset`, which is read again up to the batch to begin with."""

    def __init__(self, dataset: tf.data.Dataset) -> None:
        import tensorflow as tf

        self._given = dataset
        self._draws = False
        self._visits = []
        for part in _pipeline(dataset):
            self._draws |= _check_seeds(part)
            visits = visits_of(part)
            self._visits += [] if visits is None else [visits]
        size = int(dataset.cardinality())
        if size == tf.data.UNKNOWN_CARDINALITY:
            raise problem(
                "a tf.data.Dataset of unknown length for ResumeTraining",
                "a dataset of known length",
                "add dataset.apply(tf.data.experimental.assert_cardinality(number_of_batches))",
            )
        self.per_epoch = None if size == tf.data.INFINITE_CARDINALITY else size
        # In each process alike: this, too, counts for the orders of a pipeline that shuffles.
        self._first = next(iter(dataset))
        parts = tf.nest.flatten(self._first, expand_composites=True)
        self.identity = {
            "batches": self.per_epoch,
            "types": str(dataset.element_spec),
            "first batch": [fingerprint(part) for part in parts],
        }

    def dataset(self, first: int, seed: int) -> tf.data.Dataset:
        """See `Batches`."""
        endless = self._given if self.per_epoch is None else self._given.repeat()
        for visits in self._visits:
            visits.begin_again()
        # What an example gets depends on what was read before it.
        in_turn = self._draws or self._visits
        if self.per_epoch is not None and not in_turn:
            # The orders of a pipeline that shuffles are counted by its iterators.
            for _ in range(first // self.per_epoch):
                iter(self._given)
            first %= self.per_epoch
        return endless.skip(first)

    def sample(self) -> tf.data.Dataset:
        """See `Batches`."""
        import tensorflow as tf

        return tf.data.Dataset.from_generator(
            lambda: [self._first], output_signature=self._given.element_spec
        )


def _pipeline(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """A dataset and those that it is made of."""
    yield dataset
    for part in dataset._inputs():
        yield from _pipeline(part)


def _check_seeds(dataset: tf.data.Dataset) -> bool:
    """Check that a step of a pipeline does the same in each process.

    Returns:
        Whether it draws random numbers for each example.
    """
    kind = type(dataset).__name__.strip("_")
    seeds: list[Any] = [getattr(dataset, name, None) for name in ("_seed", "_seed2")]
    if all(seed is not None for seed in seeds) and not any(map(int, seeds)):
        raise _unseeded(f"a {kind}")
    draws = False
    for function in dataset._functions():
        for operation in function.function.graph.get_operations():
            if operation.type.startswith("Assign"):
                raise problem(
                    f"a {kind} with a function that changes a variable",
                    "changes of examples that are a function of the example",
                    "put layers that draw random numbers into the student, or use functions such "
                    "as tf.image.stateless_random_flip_left_right",
                )
            names = {attribute.name for attribute in operation.op_def.attr}
            if not {"seed", "seed2"} <= names or not operation.op_def.is_stateful:
                continue
            draws = True
            if not (operation.get_attr("seed") or operation.get_attr("seed2")):
                raise _unseeded(f"{operation.type} in a {kind}")
            if "Parallel" in kind:
                raise problem(
                    f"{operation.type} in a {kind}, whose order is not fixed",
                    "changes of examples that are the same after a restart",
                    "leave out num_parallel_calls there, or use a function such as "
                    "tf.random.stateless_normal with a seed that is part of the example",
                )
    return draws


def _unseeded(received: str) -> ValueError:
    return problem(
        f"{received}, without a seed",
        "an order and changes of the examples that are the same after a restart",
        "call keras.utils.set_random_seed(...) before the dataset is made, or give it seed=...",
    )


def fingerprint(array: Any) -> str:
    """Shape, type and checksum of an array."""
    array = np.asarray(array)
    if array.dtype == object:
        content = b"".join(f"{len(item)} ".encode() + item for item in map(_bytes, array.flat))
    else:
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return f"{array.dtype.name}{list(array.shape)} {zlib.crc32(content):08x}"


def _bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()
