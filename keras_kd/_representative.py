"""Representative data: the examples from which the ranges of activations are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._examples import InputInfo, examples_by_name

# Ranges hardly move after some hundred examples, and each one costs a run of the float model.
MAX_EXAMPLES = 500
_SOURCE = "representative_data"


def representative_examples(data: Any, inputs: Sequence[InputInfo]) -> dict[str, np.ndarray]:
    """At most `MAX_EXAMPLES` checked examples by input name, shaped (examples, ...).

    Args:
        data: an array shaped (examples, ...), a dict of arrays by input name, or an iterable of
            batches such as a `tf.data.Dataset` or a generator. A batch is an array or a dict; of a
            tuple, as in `fit`, only the first part is used. Of arrays, evenly spaced examples are
            taken, of batches the first.
        inputs: what the student takes.

    Raises:
        TypeError: if `data` is none of these.
        ValueError: if there is nothing in it, or if names, shapes, types or values do not fit.
    """
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        examples = _evenly_spaced(examples_by_name(data, inputs, _SOURCE))
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes):
        examples = _first(data, inputs)
    else:
        raise TypeError(
            problem(
                f"{_SOURCE} of type {type(data).__name__}",
                "an array, a dict of arrays, a tf.data.Dataset or a generator of batches",
                "pass some hundred training examples, for example x_train[:500]",
            )
        )
    _check_informative(examples)
    return examples


def _evenly_spaced(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = len(next(iter(arrays.values())))
    chosen = np.linspace(0, count - 1, min(count, MAX_EXAMPLES)).round().astype(int)
    return {name: array[chosen] for name, array in arrays.items()}


def _first(batches: Iterable[Any], inputs: Sequence[InputInfo]) -> dict[str, np.ndarray]:
    collected: list[dict[str, np.ndarray]] = []
    count = 0
    for batch in _without_labels(batches):
        collected.append(examples_by_name(batch, inputs, f"a batch of {_SOURCE}"))
        count += len(next(iter(collected[-1].values())))
        if count >= MAX_EXAMPLES:
            break
    return {
        tensor.name: np.concatenate(
            [batch[tensor.name] for batch in collected] or [np.empty((0, *tensor.shape[1:]))]
        )[:MAX_EXAMPLES]
        for tensor in inputs
    }


def _without_labels(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        yield batch[0] if isinstance(batch, tuple) else batch


def _check_informative(examples: dict[str, np.ndarray]) -> None:
    fix = "pass some hundred training examples, for example x_train[:500]"
    if any(len(array) == 0 for array in examples.values()):
        # The converter would return the float model without a word.
        raise ValueError(problem(f"{_SOURCE} without an example", "at least one", fix))
    real = [array for array in examples.values() if np.issubdtype(array.dtype, np.floating)]
    if real and all(array.min() == array.max() for array in real):
        raise ValueError(
            problem(
                f"{_SOURCE} in which every value is {real[0].flat[0]}",
                "examples like those that the student was trained on",
                fix,
            )
        )
