"""The examples on which a file is compared with its student, and students of whole batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from keras_kd._checks import problem
from keras_kd._representative import Ranges
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.student import Signature, layers_of
from keras_kd.tflite.tensors import TensorInfo, concrete

# Enough to see a file that computes something else, few enough to wait for.
_MOST_EXAMPLES = 100
_RANDOM_EXAMPLES = 32
# How many words or categories a layer has; numbers beyond them have no meaning.
_COUNTS = {"Embedding": "input_dim", "CategoryEncoding": "num_tokens"}


class Evidence(NamedTuple):
    """Examples by input name, shaped (examples, ...), their labels, and what they are.

    `data` is "given", "representative" or "random".
    """

    examples: dict[str, np.ndarray]
    y: Any
    data: str


def known_evidence(
    signature: Signature,
    given: Any,
    y: Any,
    representative: dict[str, np.ndarray] | None,
) -> Evidence | None:
    """The best real examples that there are: those given, else representative ones.

    Args:
        signature: the student.
        given: an array or a dict by input name; all of it is used.
        y: labels of the given ones.
        representative: those for calibration; some of them are used.

    Raises:
        ValueError: if the given ones do not fit the student, or if labels come without them.
    """
    if given is not None:
        examples = signature.examples(given, "verification_data")
        return Evidence(examples, y, "given")
    if y is not None:
        raise problem(
            "y without verification_data",
            "the examples that they belong to",
            "pass verification_data=x_test, y=y_test",
        )
    if representative is None:
        return None
    count = len(next(iter(representative.values())))
    chosen = np.linspace(0, count - 1, min(count, _MOST_EXAMPLES)).round().astype(int)
    some = {name: array[chosen] for name, array in representative.items()}
    return Evidence(some, None, "representative")


def random_evidence(signature: Signature, model: TFLiteModel, ranges: Ranges) -> Evidence:
    """Random numbers where there are no examples.

    Args:
        signature: the student.
        model: the file: where it can hold some numbers only, they are taken from these.
        ranges: by input name from where to where real numbers go; None where that is not known:
            then it is what the file can hold, or 0 to 1.
    """
    held = dict(zip((t.name for t in model.inputs), model.flatbuffer.input_ranges(), strict=True))
    words = _smallest_vocabulary(signature.model)
    generator = np.random.default_rng(0)
    some = {
        t.name: _random(t, generator, ranges[t.name] or held[t.name] or (0.0, 1.0), words)
        for t in signature.own_inputs
    }
    return Evidence(signature.with_states(some), None, "random")


def _random(
    tensor: TensorInfo,
    generator: np.random.Generator,
    limits: tuple[float, float],
    words: int,
) -> np.ndarray:
    shape = (_RANDOM_EXAMPLES, *concrete(tensor.shape[1:]))
    if np.issubdtype(tensor.dtype, np.floating):
        return generator.uniform(*limits, shape).astype(tensor.dtype)
    return generator.integers(0, words, shape).astype(tensor.dtype)


def _smallest_vocabulary(model: Any) -> int:
    counts = [
        getattr(layer, _COUNTS[type(layer).__name__])
        for layer in layers_of(model)
        if type(layer).__name__ in _COUNTS
    ]
    return min(counts, default=2)


# Sums are rounded differently in batches of different sizes; a share of the largest value.
_ROUNDING = 1e-3
_MOST_COMPARED = 32
# Layers of Keras that do so: the floor of a spectrogram in decibels is 80 below the loudest one.
_DEPENDENT = {"MelSpectrogram": "power_to_db"}
_WAY_OUT = {
    "MelSpectrogram": "build it with power_to_db=False and take the logarithm in the next layer, "
    "for example keras.ops.log(x + 1e-6), or apply it to the data before the student",
}


@contextmanager
def naming_dependence(signature: Signature, examples: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Say of a file that is off if it is because the student depends on the batch.

    A file computes one example at a time.

    Args:
        signature: the student.
        examples: those that the file was compared on, by input name.

    Raises:
        ValueError: the one that was raised in the block, or one that names the cause.
    """
    try:
        yield
    except ValueError as error:
        difference = _dependence(signature, examples)
        if difference is None:
            raise
        found = [
            layer
            for layer in layers_of(signature.model)
            if getattr(layer, _DEPENDENT.get(type(layer).__name__, ""), False)
        ]
        names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in found)
        kinds = dict.fromkeys(type(layer).__name__ for layer in found)
        raise problem(
            f"the student {signature.model.name!r}, whose outputs for an example depend on the "
            f"other examples of the batch, by up to {difference:.3g}"
            + (f", because of its layer {names}" if names else ""),
            "the same outputs for an example alone, which is how a file computes",
            "; ".join(_WAY_OUT[kind] for kind in kinds)
            or "replace the layer that computes something over the whole batch",
        ) from error


def _dependence(signature: Signature, examples: Mapping[str, np.ndarray]) -> float | None:
    """How far an example alone is from the same one in a batch; None if it is the same."""
    import tensorflow as tf

    some = {name: array[:_MOST_COMPARED] for name, array in examples.items()}
    count = len(next(iter(some.values())))
    with tf.device("CPU:0"):
        together = signature(some)
        alone = [
            signature({name: array[i : i + 1] for name, array in some.items()})
            for i in range(count)
        ]
    found = None
    for name, values in together.items():
        expected = np.asarray(values, np.float64)
        each = np.concatenate([np.asarray(outputs[name], np.float64) for outputs in alone])
        difference = np.abs(each - expected).max(initial=0)
        if difference > _ROUNDING * np.abs(expected).max(initial=0):
            found = max(found or 0.0, float(difference))
    return found
