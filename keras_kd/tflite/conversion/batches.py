"""Students that compute something else of an example in a batch than of the same one alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.student import Signature, layers_of

# Sums are rounded differently in batches of different sizes; a share of the largest value.
_ROUNDING = 1e-3
_MOST_EXAMPLES = 32
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

    some = {name: array[:_MOST_EXAMPLES] for name, array in examples.items()}
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
