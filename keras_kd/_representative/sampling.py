"""A sample of examples from data of any size and form, spread over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from keras_kd._checks import problem
from keras_kd._examples import InputInfo, by_position, examples_by_name
from keras_kd.teachers.joined import without_teacher

# A generator may have no end. Data with a known length are read to their end.
_MOST_SEEN = 10_000
_MOST_SEEN_OF_FINITE = 100_000
_SEED = 0


class Sample(NamedTuple):
    """Some examples by input name, shaped (examples, ...), and their classes, if known."""

    examples: dict[str, np.ndarray]
    classes: np.ndarray | None


class _Batch(NamedTuple):
    """What the inputs are, in a form that `examples_by_name` takes, and labels, if there are."""

    inputs: Any
    labels: Any


def sampled(
    data: Any, inputs: Sequence[InputInfo], most: int, source: str, *, in_order: bool
) -> Sample | None:
    """Choose examples from all of the data, by chance, and the same ones each time.

    Where labels come with the data, every class that is in them is in the sample, as far as there
    is room.

    Args:
        data: see `representative_examples`; paths and names have been read already.
        inputs: what the student takes, in the order of its inputs.
        most: how many examples at most.
        source: what the caller named the data, for messages.
        in_order: take the first ones in their order instead, as those of a stream are.

    Returns:
        The sample; None if the data are none.

    Raises:
        TypeError: if a function needs arguments.
        ValueError: if names, shapes, types or values do not fit the inputs.
    """
    if callable(data) and not isinstance(data, Iterable) and not hasattr(data, "__array__"):
        data = _called(data, source)
    whole = _whole(data, inputs)
    if whole is not None:
        return _of_arrays(whole, inputs, most, source, in_order)
    is_asked = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if is_asked and not isinstance(data, Iterable):
        # A `keras.utils.PyDataset` is read by its batches.
        data = _Batches(data)
    if not _is_iterable(data):
        return None
    reservoir = _Reservoir(most)
    end = _MOST_SEEN_OF_FINITE if _is_finite(data) else _MOST_SEEN
    if in_order:
        end = most
    for batch in data:
        found = _of_batch(batch, inputs)
        examples = examples_by_name(found.inputs, inputs, f"a batch of {source}")
        classes = _classes(found.labels, _count(examples))
        if in_order:
            examples = {name: array[: most - reservoir.seen] for name, array in examples.items()}
            classes = None
        reservoir.add(examples, classes)
        if reservoir.seen >= end:
            break
    return reservoir.sample(inputs, source)


class _Batches:
    """The batches of an object that is read by their numbers."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        return (self._data[number] for number in range(len(self._data)))


class _Reservoir:
    """Keeps examples so that each one that was seen had the same chance."""

    def __init__(self, most: int) -> None:
        self.seen = 0
        self._most = most
        self._random = np.random.default_rng(_SEED)
        self._rows: list[dict[str, np.ndarray]] = []
        self._labels: list[int] = []
        # The first example of each class, in case that chance leaves it out.
        self._first: dict[int, dict[str, np.ndarray]] = {}
        self._knows_classes = True

    def add(self, examples: Mapping[str, np.ndarray], classes: np.ndarray | None) -> None:
        self._knows_classes = self._knows_classes and classes is not None
        count = _count(examples)
        # The place that each one would take; those beyond the end are left out.
        places = self._random.integers(0, np.arange(self.seen, self.seen + count) + 1)
        for number in range(count):
            label = -1 if classes is None else int(classes[number])
            is_first = label not in self._first and len(self._first) < self._most
            place = len(self._rows) if len(self._rows) < self._most else int(places[number])
            if place >= self._most and not is_first:
                continue
            row = {name: np.array(array[number]) for name, array in examples.items()}
            if is_first:
                self._first[label] = row
            if place == len(self._rows):
                self._rows.append(row)
                self._labels.append(label)
            elif place < self._most:
                self._rows[place], self._labels[place] = row, label
        self.seen += count

    def sample(self, inputs: Sequence[InputInfo], source: str) -> Sample:
        if self._knows_classes:
            for place, label in _places_of_missing(np.array(self._labels, int), list(self._first)):
                self._rows[place], self._labels[place] = self._first[label], label
        examples = {}
        for tensor in inputs:
            rows = [row[tensor.name] for row in self._rows]
            shapes = {row.shape for row in rows}
            if len(shapes) > 1:
                raise problem(
                    f"{source} for the input {tensor.name!r} with examples of the shapes "
                    f"{sorted(shapes)[:3]}",
                    "examples of one shape",
                    "bring them to one shape: pad or cut sequences",
                )
            empty = np.empty((0, *(size or 0 for size in tensor.shape[1:])), tensor.dtype)
            examples[tensor.name] = np.stack(rows) if rows else empty
        known = np.array(self._labels, int) if self._knows_classes and self._rows else None
        return Sample(examples, known)


def _called(function: Any, source: str) -> Any:
    try:
        return function()
    except TypeError as error:
        raise problem(
            f"{source} of type {type(function).__name__}, which cannot be called without "
            f"arguments ({error})",
            "a function that takes none and yields batches, or data",
            "pass the data themselves, or lambda: batches(...)",
            kind=TypeError,
        ) from error


def _is_iterable(data: Any) -> TypeGuard[Iterable[Any]]:
    return isinstance(data, Iterable) and not isinstance(data, str | bytes)


def _is_finite(data: Any) -> bool:
    """Whether the data have a known end; a `tf.data.Dataset` gives -1 or -2 if not."""
    if callable(getattr(data, "cardinality", None)):
        return int(data.cardinality()) >= 0
    return hasattr(data, "__len__")


def _whole(data: Any, inputs: Sequence[InputInfo]) -> _Batch | None:
    """All data at once, where they are arrays; None where they are batches or nothing."""
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        return _Batch(data, None)
    if not isinstance(data, list | tuple):
        return None
    if len(inputs) > 1:
        named = by_position(data, inputs)
        if named is not None:
            return _Batch(named, None)
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, y = data[0], data[1]
        named = x if isinstance(x, Mapping) else by_position(_listed(x, inputs), inputs)
        # Two batches of a single input are not an input and labels.
        if named is not None and not (len(inputs) == 1 and by_position([y], inputs)):
            return _Batch(named, y)
    return None


def _listed(x: Any, inputs: Sequence[InputInfo]) -> Sequence[Any]:
    return x if isinstance(x, list | tuple) and len(inputs) > 1 else [x]


def _of_batch(batch: Any, inputs: Sequence[InputInfo]) -> _Batch:
    """A batch in the forms of users and of TFLite's `representative_dataset`."""
    if isinstance(batch, list | tuple):
        named = by_position(batch, inputs)
        if named is not None:
            return _Batch(named, None)
        if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[0], str):
            # TFLite's form for files with several signatures: the name of one, and its inputs.
            return _of_batch(batch[1], inputs)
        if isinstance(batch, tuple) and batch:
            x = _of_batch(batch[0], inputs).inputs
            return _Batch(x, batch[1] if len(batch) > 1 else None)
    return _Batch(without_teacher(batch), None)


def _of_arrays(
    whole: _Batch, inputs: Sequence[InputInfo], most: int, source: str, in_order: bool
) -> Sample | None:
    data = whole.inputs
    arrays = {
        name: array if hasattr(array, "shape") else np.asarray(array)
        for name, array in (data.items() if isinstance(data, Mapping) else [("", data)])
    }
    counts = {array.shape[0] if len(array.shape) else 0 for array in arrays.values()}
    count = counts.pop() if len(counts) == 1 else 0
    classes = _classes(whole.labels, count)
    if count > most:
        # Only what is chosen is looked at: the rest may lie on the disk.
        chosen = np.arange(most) if in_order else _chosen(count, classes, most)
        arrays = {name: np.asarray(_rows(array, chosen)) for name, array in arrays.items()}
        classes = None if classes is None else classes[chosen]
    named = arrays if isinstance(data, Mapping) else arrays[""]
    return Sample(examples_by_name(named, inputs, source), classes)


def some_of(examples: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """At most that many of the examples, a random one from each of as many equal parts."""
    count = _count(examples)
    chosen = _chosen(count, None, most) if count > most else slice(None)
    return {name: array[chosen] for name, array in examples.items()}


def _rows(array: Any, chosen: np.ndarray) -> Any:
    return array[chosen] if isinstance(array, np.ndarray) else np.asarray(array)[chosen]


def _chosen(count: int, classes: np.ndarray | None, most: int) -> np.ndarray:
    """The numbers of examples: one by chance from each of as many equal parts, shuffled.

    Data may be sorted or periodic; the sample must not depend on that.
    """
    random = np.random.default_rng(_SEED)
    borders = np.linspace(0, count, most + 1).astype(int)
    chosen = random.integers(borders[:-1], borders[1:])
    random.shuffle(chosen)
    if classes is not None:
        labels, first = np.unique(classes, return_index=True)
        first_of = dict(zip(labels.tolist(), first.tolist(), strict=True))
        for place, label in _places_of_missing(classes[chosen], list(first_of)):
            chosen[place] = first_of[label]
    return chosen


def _places_of_missing(labels: np.ndarray, known: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where a class that is missing from a sample can stand: in place of a frequent one."""
    labels = labels.copy()
    for label in known:
        if label in labels:
            continue
        values, counts = np.unique(labels, return_counts=True)
        if not len(counts) or counts.max() < 2:
            return
        place = int(np.flatnonzero(labels == values[counts.argmax()])[-1])
        labels[place] = label
        yield place, int(label)


def _count(examples: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(examples.values())))


def _classes(labels: Any, count: int) -> np.ndarray | None:
    """The class of each example; None where labels are something else, or unknown."""
    if labels is None or isinstance(labels, Mapping | list | tuple | str):
        return None
    array = np.asarray(labels)
    if array.shape[:1] != (count,) or array.dtype.kind not in "biuf" or count == 0:
        return None
    if array.shape[1:] not in ((), (1,)):
        is_one_hot = array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all()
        return array.argmax(axis=1) if is_one_hot else None
    return None if array.dtype.kind == "f" else array.reshape(count).astype(np.int64)
