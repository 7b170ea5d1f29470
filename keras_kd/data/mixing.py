"""Labeled and unlabeled examples in the same batches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_kd import _backends
from keras_kd._checks import check_integer, check_number, problem


def mix(
    labeled: tuple[Any, Any],
    unlabeled: Any,
    *,
    batch_size: int = 32,
    labeled_share: float = 0.5,
    missing_label: int = -1,
    seed: int | None = None,
) -> Any:
    """Mix labeled and unlabeled examples, with as many labels in every batch.

    For a student that learns from the labels where there are some and from its teacher everywhere.
    Each batch holds first the labeled, then the unlabeled examples. An epoch goes through the set
    that takes longer once; its last batch is filled up by examples of the next round, and the
    other set is repeated or used in part. Every epoch and every round has another order.

    Args:
        labeled: a pair (x, y); x an array of shape `(examples, ...)` or a dict of them, y likewise.
        unlabeled: inputs like x.
        batch_size: how many examples a batch has, at least 2.
        labeled_share: which part of a batch has labels, between 0 and 1; rounded, and at least one
            example of each kind.
        missing_label: the label of an example that has none, where labels are integers.
            Where they are floats (one-hot, regression), NaN does.
        seed: the same seed (and the same `keras.utils.set_random_seed`) gives the same order.

    Returns:
        Batches (x, y) for `fit`, all of `batch_size`: a `tf.data.Dataset`, or a
        `keras.utils.PyDataset` where Keras computes with JAX or PyTorch.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if x and y or the two sets do not fit each other, a set is empty, a label looks
            like a missing one, or an argument is out of range.

    Example:
        >>> batches = mix((np.zeros((4, 3)), np.arange(4)), np.ones((7, 3)), batch_size=4, seed=0)
        >>> len(batches), [int(label) for label in next(iter(batches))[1][2:]]
        (4, [-1, -1])
    """
    batch_size = check_integer("batch_size", batch_size, at_least=2, fix="try 32")
    labeled_share = check_number(
        "labeled_share", labeled_share, above=0.0, at_most=1.0, fix="try 0.5"
    )
    missing_label = check_integer("missing_label", missing_label, fix="use -1")
    x, y = _check_labeled(labeled)
    others = keras.tree.map_structure(np.asarray, unlabeled)
    number_labeled, number_unlabeled = _examples("labeled", (x, y)), _examples("unlabeled", others)
    _check_alike(x, others)
    y = keras.tree.map_structure(lambda labels: _labels(labels, missing_label), y)
    blank = keras.tree.map_structure(lambda labels: _missing(labels, missing_label), y)

    with_label = min(max(round(batch_size * labeled_share), 1), batch_size - 1)
    without = batch_size - with_label
    batches = max(-(-number_labeled // with_label), -(-number_unlabeled // without))
    numbers = (number_labeled, with_label), (number_unlabeled, without)
    if not _backends.is_tensorflow():
        return _MixedBatches((x, y, others, blank), numbers, batches, seed)
    import tensorflow as tf

    indexes = tf.data.Dataset.zip(
        _endless_batches(number_labeled, with_label, seed),
        _endless_batches(number_unlabeled, without, None if seed is None else seed + 1),
    ).take(batches)
    x, y, others, blank = keras.tree.map_structure(tf.convert_to_tensor, (x, y, others, blank))

    def batch(first: Any, second: Any) -> tuple[Any, Any]:
        def joined(one: Any, other: Any) -> Any:
            return tf.concat([tf.gather(one, first), tf.gather(other, second)], axis=0)

        def labels(known: Any, empty: Any) -> Any:
            return tf.concat([tf.gather(known, first), tf.repeat(empty, without, axis=0)], axis=0)

        return (
            keras.tree.map_structure(joined, x, others),
            keras.tree.map_structure(labels, y, blank),
        )

    return indexes.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


class _MixedBatches(keras.utils.PyDataset):
    """The batches of `mix` for backends that read no `tf.data`.

    Args:
        parts: x, y, unlabeled inputs, and a missing label for each output.
        numbers: of the labeled and of the unlabeled: how many there are, and how many in a batch.
        batches: how many batches are an epoch.
        seed: of the orders.
    """

    def __init__(
        self,
        parts: tuple[Any, ...],
        numbers: tuple[tuple[int, int], tuple[int, int]],
        batches: int,
        seed: int | None,
    ) -> None:
        super().__init__()
        self._parts, self._numbers, self._batches = parts, numbers, batches
        if seed is None:
            seed = int(keras.random.randint((), 0, 2**31 - 1))
        self._random = np.random.default_rng(seed)
        self._orders: list[np.ndarray] = []
        self.on_epoch_begin()

    @property
    def num_batches(self) -> int:
        """How many batches are an epoch."""
        return self._batches

    def on_epoch_begin(self) -> None:
        """Take another order."""
        self._orders = []
        for examples, size in self._numbers:
            rounds = -(-self._batches * size // examples)
            order = [self._random.permutation(examples) for _ in range(rounds)]
            self._orders.append(np.concatenate(order))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """A batch."""
        first, second = (
            order[index * size : (index + 1) * size]
            for order, (_, size) in zip(self._orders, self._numbers, strict=True)
        )
        x, y, others, blank = self._parts
        return (
            keras.tree.map_structure(
                lambda one, other: np.concatenate([one[first], other[second]]), x, others
            ),
            keras.tree.map_structure(
                lambda known, empty: np.concatenate([known[first], empty.repeat(len(second), 0)]),
                y,
                blank,
            ),
        )


def _endless_batches(examples: int, size: int, seed: int | None) -> Any:
    """Indexes in batches, each round through the examples in a new order."""
    import tensorflow as tf

    shuffled = tf.data.Dataset.range(examples).shuffle(examples, seed=seed)
    return shuffled.repeat().batch(size, drop_remainder=True)


def _check_labeled(labeled: Any) -> tuple[Any, Any]:
    if not isinstance(labeled, tuple | list) or len(labeled) != 2:
        raise problem(
            f"labeled of type {type(labeled).__qualname__}",
            "a pair (x, y) of arrays",
            "pass labeled=(x, y)",
            kind=TypeError,
        )
    x, y = keras.tree.map_structure(np.asarray, tuple(labeled))
    return x, y


def _examples(name: str, arrays: Any) -> int:
    """The number of examples, the same in all arrays."""
    counts = {array.shape[0] if array.ndim else 0 for array in keras.tree.flatten(arrays)}
    if len(counts) != 1 or 0 in counts:
        raise problem(
            f"{name} arrays of {' and '.join(map(str, sorted(counts)))} examples",
            "at least one example, and as many in all arrays",
            "cut all arrays to the same length",
        )
    return counts.pop()


def _check_alike(x: Any, others: Any) -> None:
    def described(arrays: Any) -> Any:
        return keras.tree.map_structure(
            lambda array: f"{array.dtype} (examples, {', '.join(map(str, array.shape[1:]))})",
            arrays,
        )

    if described(x) != described(others):
        raise problem(
            f"labeled inputs {described(x)} and unlabeled inputs {described(others)}",
            "the same names, types and shapes for both",
            "prepare the unlabeled inputs as the labeled ones, and give them without labels",
        )


def _labels(labels: np.ndarray, missing_label: int) -> np.ndarray:
    """Labels of a type that can hold the missing label."""
    if labels.dtype.kind not in "iuf":
        raise problem(
            f"labels of type {labels.dtype}", "numbers", "write y.astype('float32')", kind=TypeError
        )
    if labels.dtype.kind in "iu" and not _holds(labels.dtype, missing_label):
        labels = labels.astype("int64")
    empty = np.isnan(labels) if labels.dtype.kind == "f" else labels == missing_label
    if empty.any():
        raise problem(
            f"{np.count_nonzero(empty)} labels that are "
            f"{'NaN' if labels.dtype.kind == 'f' else missing_label} in `labeled`",
            "labels that differ from missing_label",
            "move these examples to `unlabeled`, or choose another missing_label",
        )
    return labels


def _holds(dtype: np.dtype, number: int) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= number <= limits.max


def _missing(labels: np.ndarray, missing_label: int) -> np.ndarray:
    value = np.nan if labels.dtype.kind == "f" else missing_label
    return np.full((1, *labels.shape[1:]), value, labels.dtype)
