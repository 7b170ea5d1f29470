"""The examples on which a file is compared with its student."""

from __future__ import annotations

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
