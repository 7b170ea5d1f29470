"""Batches in the user's form: the key, and the inputs of student and teacher."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.teachers.inputs import Inputs, ModelInputs


class Batch(NamedTuple):
    """Some examples: a batch, or all that there are.

    Attributes:
        x: the inputs, a structure of arrays.
        y: labels, the same, or `None`.
        sample_weight: the same, or `None`.
        key: one key per example; `None` where they are identified by their positions.
        outputs: a teacher's outputs for them, by name, or `None`.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    key: Any = None
    outputs: Any = None

    @property
    def count(self) -> int:
        """How many examples."""
        return len(keras.tree.flatten(self.x if self.outputs is None else self.outputs)[0])

    @property
    def labels(self) -> tuple:
        """What comes after the inputs in a batch for `fit`."""
        if self.sample_weight is not None:
            return self.y, self.sample_weight
        return () if self.y is None else (self.y,)

    def take(self, places: Any) -> Batch:
        """Some of the examples."""
        parts = keras.tree.map_structure(
            lambda part: None if part is None else part[places], tuple(self)
        )
        return Batch(*parts)


class Division:
    """Takes the inputs of a batch apart.

    Args:
        key: the name of the entry of dict inputs that is the key; `None` for positions.
        teacher_inputs: the teacher's part of the rest, see `keras_kd.Distiller`.

    Raises:
        TypeError: if `key` is no name, or `teacher_inputs` nothing of what it can be.
    """

    def __init__(self, key: str | None = None, teacher_inputs: ModelInputs = None) -> None:
        if not isinstance(key, str | None):
            raise problem(
                f"key={key!r:.80}",
                "the name of an entry of dict inputs, or None",
                "give inputs {'image': x, 'key': numbers} and key='key'",
                kind=TypeError,
            )
        self.key = key
        self.inputs = Inputs(teacher_inputs)

    def __call__(self, batch: Any) -> Batch:
        """`x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)` taken apart.

        A single entry of the inputs that is left beside the key is not in a dict.

        Raises:
            ValueError: if there is no key.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self.key is None:
            return Batch(x, y, sample_weight)
        entries = sorted(x) if isinstance(x, dict) else []
        if self.key not in entries or len(entries) < 2:
            raise problem(
                f"inputs {entries if entries else type(x).__name__} for key={self.key!r}",
                f"a dict of inputs in which {self.key!r} is the key of each example",
                "give inputs such as {'image': x, 'key': numbers}",
            )
        # The key is to the others what the teacher's part is to the student.
        return Batch(Inputs(self.key).of_student(x), y, sample_weight, x[self.key])


def is_py_dataset(dataset: Any) -> bool:
    """Whether these are batches by number."""
    return isinstance(dataset, keras.utils.PyDataset)


def is_tf_dataset(dataset: Any) -> bool:
    """Whether these are the batches of TensorFlow's input pipelines."""
    # Without TensorFlow there is none.
    data = getattr(sys.modules.get("tensorflow"), "data", None)
    return data is not None and isinstance(dataset, data.Dataset)


def as_arrays(dataset: Any) -> Batch | None:
    """The examples of `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; `None` for batches.

    Raises:
        TypeError: if the dataset is nothing that `fit` takes.
        ValueError: if there are no examples, or not the same number everywhere.
    """
    if is_py_dataset(dataset) or is_tf_dataset(dataset):
        return None
    is_list_of_batches = isinstance(dataset, list) and all(
        isinstance(batch, tuple | dict) for batch in dataset
    )
    if is_list_of_batches or isinstance(dataset, Iterator):
        return None
    if not isinstance(dataset, tuple | dict) and not hasattr(dataset, "shape"):
        if isinstance(dataset, Iterable) and not isinstance(dataset, list | str | bytes):
            return None
        raise _unknown(dataset)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(dataset)
    arrays = Batch(*keras.tree.map_structure(_as_array, (x, y, sample_weight)))
    sizes = {part.shape[:1] for part in keras.tree.flatten(tuple(arrays)) if part is not None}
    if len(sizes) != 1 or sizes == {()} or sizes == {(0,)}:
        raise problem(
            f"arrays with {sorted(sizes)} examples",
            "the same number in all of them, above 0",
            "pass (x, y) or (x, y, sample_weight), with the examples along the first axis",
        )
    return arrays


def batches_of(dataset: Any, batch_size: int) -> Iterator[Any]:
    """Batches of NumPy arrays, each `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        dataset: data in any form that `fit` takes.
        batch_size: how many examples of arrays at once.

    Raises:
        TypeError: if it is nothing that `fit` takes.
        ValueError: if it has no end.
    """
    arrays = as_arrays(dataset)
    if arrays is not None:
        for first in range(0, arrays.count, batch_size):
            part = arrays.take(slice(first, first + batch_size))
            yield part.x, part.y, part.sample_weight
    elif is_py_dataset(dataset):
        yield from (dataset[number] for number in range(_number_of_batches(dataset)))
    else:
        yield from dataset


def number_of_examples(dataset: Any) -> int | None:
    """How many examples there are, where that is known.

    Raises:
        ValueError: if they have no end.
    """
    arrays = as_arrays(dataset)
    if arrays is not None:
        return arrays.count
    if is_py_dataset(dataset):
        _number_of_batches(dataset)
    elif is_tf_dataset(dataset):
        check_batched(dataset.element_spec)
        if int(dataset.cardinality()) == -1:
            raise _endless()
    return None


def check_batched(element: Any) -> None:
    """Check that the elements of a dataset can be batches, as far as their shapes show.

    Args:
        element: its `element_spec`.

    Raises:
        TypeError: if a part is sparse or ragged.
        ValueError: if they cannot.
    """
    import tensorflow as tf

    parts = keras.tree.flatten(element)
    for part in parts:
        if isinstance(part, tf.SparseTensorSpec | tf.RaggedTensorSpec):
            raise _not_dense(part)
    shapes = [part.shape for part in parts if hasattr(part, "shape")]
    sizes = {None if shape.rank is None else tuple(shape[:1]) for shape in shapes}
    known = sizes - {None, (None,)}
    if () in known or len(known) > 1:
        raise problem(
            f"a dataset whose elements have the shapes {', '.join(map(str, shapes))}",
            "batches, with the examples along the first axis of each part",
            "pass dataset.batch(256)",
        )


def size_of(batch: Any) -> int:
    """How many examples a batch has."""
    x, *_ = keras.utils.unpack_x_y_sample_weight(batch)
    return len(keras.tree.flatten(x)[0])


def to_numpy(structure: Any) -> Any:
    """A structure of arrays, with float64 as Keras gives it to models."""
    if isinstance(structure, np.ndarray):
        return _as_given_to_models(structure)
    return keras.tree.map_structure(_as_given_to_models, structure)


def names_of(teacher_inputs: ModelInputs) -> tuple[str, ...] | None:
    """The entries for the teacher alone; `None` where the student has all of them.

    Raises:
        ValueError: if they are indexes.
    """
    if teacher_inputs is None or callable(teacher_inputs):
        return None
    named = teacher_inputs.values() if isinstance(teacher_inputs, dict) else teacher_inputs
    entries = (named,) if isinstance(named, str | int) else tuple(named)
    names = tuple(name for name in entries if isinstance(name, str))
    if len(names) < len(entries):
        raise problem(
            f"teacher_inputs={teacher_inputs!r} to be stored",
            "names of entries of dict inputs, which a store can hold",
            "give inputs such as {'small': ..., 'large': ...} and teacher_inputs='large'",
        )
    return names


def _as_array(part: Any) -> Any:
    # A memory-mapped array is one, and is to stay on the disk.
    if part is None or isinstance(part, np.ndarray):
        return part
    array = np.asarray(part)
    if array.dtype == object and array.ndim == 0:
        raise _not_dense(part)
    return array


def _as_given_to_models(part: Any) -> Any:
    array: Any = _as_array(part)
    if array is None or array.dtype != np.float64:
        return array
    return array.astype(keras.config.floatx())


def _not_dense(part: Any) -> TypeError:
    return problem(
        f"{type(part).__name__} among the data",
        "arrays and dense tensors",
        "convert it, with tf.sparse.to_dense(x) or x.to_tensor(), for example",
        kind=TypeError,
    )


def _number_of_batches(dataset: Any) -> int:
    if dataset.num_batches is None:
        raise _endless()
    return dataset.num_batches


def _endless() -> ValueError:
    return problem(
        "a dataset without an end",
        "each example once",
        "leave out repeat(), or take() the batches of one epoch",
    )


def _unknown(dataset: Any) -> TypeError:
    return problem(
        f"a dataset of type {type(dataset).__name__}",
        "arrays (x, y), a tf.data.Dataset, a keras.utils.PyDataset, or an iterable of batches",
        "pass arrays as a tuple: (x,), (x, y) or (x, y, sample_weight)",
        kind=TypeError,
    )
