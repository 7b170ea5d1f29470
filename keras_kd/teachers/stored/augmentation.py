"""Reproducible augmentation: seeds of the versions of an example."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_kd import _backends
from keras_kd._checks import check_integer, problem

if TYPE_CHECKING:
    import tensorflow as tf

# How far apart `marks` of one augmentation can be, on machines that round in other ways.
TOLERANCE = 1e-4


class Augmentation:
    """A random change of an example that is the same whenever its seed is.

    Args:
        function: takes the inputs of one example, without its key, and a seed; returns the inputs
            changed. With the TensorFlow backend they are tensors, and the seed is an int32 tensor
            of shape `(2,)` for stateless operations (`tf.image.stateless_...`,
            `tf.random.stateless_...`); with others they are arrays, and the seed is an array of
            two integers from 0 on for `numpy.random.default_rng(seed)`.
        versions: how many versions there are of each example.
        seed: from which all seeds are made.

    Raises:
        TypeError: if the function cannot be called with two arguments, or a number is no integer.
        ValueError: if there is no version, or the seed is below 0.
    """

    def __init__(
        self, function: Callable[[Any, Any], Any], versions: int = 1, seed: int = 0
    ) -> None:
        if not callable(function):
            raise problem(
                f"augment={function!r:.80}",
                "a function of the inputs of one example and a seed",
                "pass for example lambda image, seed: "
                "tf.image.stateless_random_flip_left_right(image, seed)",
                kind=TypeError,
            )
        _check_parameters(function)
        self.versions = check_integer("versions", versions, at_least=1, fix="use 4, for example")
        self.seed = check_integer("seed", seed, at_least=0, fix="use 0, for example")
        self._function = function
        self._compiled: Any = None

    def check_repeatable(self, x: Any, keys: np.ndarray) -> None:
        """Check that the function does the same with the same seeds.

        Args:
            x: the inputs of a batch, a structure of arrays.
            keys: one integer per example.

        Raises:
            ValueError: if it does not.
        """
        seeds = self.seeds(keys, 0)
        once, again = (keras.tree.flatten(self(x, seeds)) for _ in range(2))
        if not all(map(np.array_equal, once, again)):
            raise problem(
                "augment that gives different results for the same seed",
                "the same result for the same seed, so that both models get the same input",
                "use the seed that it is given, and operations such as "
                "tf.image.stateless_random_flip_left_right(image, seed)",
            )

    def seeds(self, keys: np.ndarray, versions: Any) -> np.ndarray:
        """The seeds of versions of examples; see the function `seeds`."""
        return seeds(self.seed, keys, versions)

    def __call__(self, x: Any, seeds: Any) -> Any:
        """Augmented examples.

        Args:
            x: the inputs of a batch, a structure of tensors or arrays.
            seeds: int32, of shape `(batch, 2)`.
        """
        if not _backends.is_tensorflow():
            return self._of_arrays(x, np.asarray(seeds))
        import tensorflow as tf

        if self._compiled is None:
            self._compiled = (
                tf.function(self._function),
                tf.function(self._each, autograph=False, reduce_retracing=True),
            )
        x = keras.tree.map_structure(tf.convert_to_tensor, x)
        return self._compiled[1](x, tf.convert_to_tensor(seeds))

    def _of_arrays(self, x: Any, seeds: np.ndarray) -> Any:
        examples = [
            self._function(
                keras.tree.map_structure(lambda part, row=row: part[row], x), seed.view("uint32")
            )
            for row, seed in enumerate(seeds)
        ]
        return keras.tree.map_structure(lambda *parts: np.stack(parts), *examples)

    def _each(self, x: Any, seeds: tf.Tensor) -> Any:
        import tensorflow as tf

        of_one = self._compiled[0].get_concrete_function(
            keras.tree.map_structure(lambda part: tf.TensorSpec(part.shape[1:], part.dtype), x),
            tf.TensorSpec((2,), "int32"),
        )
        signature = keras.tree.map_structure(
            lambda part: tf.TensorSpec(part.shape, part.dtype), of_one.structured_outputs
        )
        return tf.map_fn(
            lambda parts: of_one(*parts),
            (*tf.nest.flatten(x), seeds),
            fn_output_signature=signature,
        )


def _check_parameters(function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function)
    except ValueError:
        # Functions that are not written in Python may have no signature.
        return
    try:
        parameters.bind("example", "seed")
    except TypeError as error:
        raise problem(
            f"augment with the parameters {parameters}",
            "a function of two: the inputs of one example, and a seed",
            "write def augment(image, seed), and use the seed, as in "
            "tf.image.stateless_random_flip_left_right(image, seed)",
            kind=TypeError,
        ) from error


def seeds(seed: int, keys: np.ndarray, versions: Any) -> np.ndarray:
    """The seeds of versions of examples.

        m(m(m(seed) xor key) xor version)

    in 64 bits, where m is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
    Generators, OOPSLA 2014); the lower half is the first number.

    Args:
        seed: the seed of the store.
        keys: int64 array of shape `(n,)`: positions, integer keys, or hashes of strings.
        versions: a number, or an array of shape `(n,)`.

    Returns:
        int32 array of shape `(n, 2)`.
    """
    mixed = _split_mix(np.array([seed % 2**64], "uint64"))
    mixed = _split_mix(mixed ^ np.asarray(keys, "int64").view("uint64"))
    mixed = _split_mix(mixed ^ np.asarray(versions).astype("uint64"))
    return mixed.astype("<u8").view("<i4").reshape(-1, 2)


def marks(x: Any) -> tf.Tensor | np.ndarray:
    """A number in about -1..1 for each example that distinguishes its augmentations.

    The sum over all inputs of `sum_i x_i cos(i) / sum_i |x_i|`.

    Args:
        x: the inputs of a batch, a structure of tensors; strings do not count.

    Returns:
        float32 tensor (an array on backends other than TensorFlow) of shape `(batch,)`.
    """
    if not _backends.is_tensorflow():
        return _marks_of_arrays(x)
    import tensorflow as tf

    total: Any = 0.0
    for part in keras.tree.flatten(x):
        if part.dtype == tf.string:
            continue
        rows = tf.cast(tf.reshape(part, (tf.shape(part)[0], -1)), "float32")
        waves = tf.cos(tf.cast(tf.range(tf.shape(rows)[1]), "float32"))
        total += tf.math.divide_no_nan(tf.linalg.matvec(rows, waves), tf.norm(rows, ord=1, axis=1))
    first = keras.tree.flatten(x)[0]
    return tf.broadcast_to(total, tf.shape(first)[:1])


def _marks_of_arrays(x: Any) -> np.ndarray:
    total: Any = 0.0
    for part in map(np.asarray, keras.tree.flatten(x)):
        if part.dtype.kind in "OSU":
            continue
        rows = part.reshape(len(part), -1).astype("float32")
        sizes = np.abs(rows).sum(axis=1)
        waves = rows @ np.cos(np.arange(rows.shape[1], dtype="float32"))
        total += np.where(sizes > 0.0, waves / np.maximum(sizes, 1e-30), 0.0)
    return np.broadcast_to(total, (len(keras.tree.flatten(x)[0]),)).astype("float32")


class Visits:
    """Gives each visit of an example its next version: all of them before any comes again.

    Args:
        examples: how many examples there are.
        versions: how many versions of each.
    """

    def __init__(self, examples: int, versions: int) -> None:
        self._next = np.zeros(examples, np.min_scalar_type(2 * versions))
        self._versions = versions
        self._lock = threading.Lock()

    def begin_again(self) -> None:
        """Give each example its first version next."""
        with self._lock:
            self._next[:] = 0

    def next_versions(self, examples: np.ndarray) -> np.ndarray:
        """The version of each of these examples, int64 of shape `(n,)`; they may repeat.

        Args:
            examples: their numbers.
        """
        with self._lock:
            unique, place, count = np.unique(examples, return_inverse=True, return_counts=True)
            first = self._next[unique].astype("int64")
            self._next[unique] = (first + count) % self._versions
        return (first[place] + _rank(place, count)) % self._versions


def _rank(place: np.ndarray, count: np.ndarray) -> np.ndarray:
    """How often each entry came before."""
    order = np.argsort(place, kind="stable")
    starts = np.repeat(np.cumsum(count) - count, count)
    rank = np.empty(len(place), "int64")
    rank[order] = np.arange(len(place)) - starts
    return rank


def _split_mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
