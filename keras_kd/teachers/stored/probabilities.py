"""Predictions that are probabilities, and the logits behind them."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_kd import _logits
from keras_kd._checks import problem

ACTIVATIONS = ("softmax", "sigmoid")
# The least normal number of float32. Its logarithm, -87, is a logit that float16 holds and that
# leaves enough of the 255 steps of uint8 to the others.
FLOOR = float(np.finfo("float32").tiny)


def logits_of(probabilities: np.ndarray, activation: str, first_example: int = 0) -> np.ndarray:
    """The logits of which an activation made these probabilities.

    For a softmax they are log p, which differs from the logits of the model by a number for each
    row: no softmax sees it, at any temperature. For a sigmoid they are log p - log(1 - p). What is
    below 1.2e-38, such as a probability of 0, counts as 1.2e-38, a logit of -87.3.

    Args:
        probabilities: shape (examples, ..., classes).
        activation: `"softmax"` or `"sigmoid"`.
        first_example: the number of the first of them, for messages.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: if no such activation gives these numbers.
    """
    values = np.asarray(probabilities).astype("float64")
    if activation == "softmax":
        possible = ops.convert_to_numpy(_logits.distribution_like(values))
        expected = "rows from 0 to 1 with the sum 1"
    else:
        possible = (values >= 0) & (values <= 1)
        expected = "numbers from 0 to 1"
    if not possible.all():
        wrong = ~possible.reshape(len(values), -1).all(axis=-1)
        raise ValueError(
            problem(
                f"predictions for example {first_example + int(np.argmax(wrong))} that no "
                f"{activation} gives",
                expected,
                "leave out the activation if they are logits"
                + (", or say 'sigmoid' if each class stands by itself" * (activation == "softmax")),
            )
        )
    logits = _log(values) if activation == "softmax" else _log(values) - _log(1.0 - values)
    return logits.astype("float32")


def check_logits(logits: np.ndarray) -> None:
    """Refuse a batch of logits all of whose rows are distributions.

    Raises:
        ValueError: if they are; a temperature applied to probabilities teaches next to nothing.
    """
    values = np.asarray(logits)
    if values.ndim < 2 or values.shape[-1] < 2 or not len(values):
        return
    if ops.convert_to_numpy(_logits.distribution_like(values)).all():
        raise ValueError(
            problem(
                "predictions that look like probabilities: no number below 0, and each row has "
                "the sum 1",
                "logits; a temperature applied to probabilities teaches next to nothing",
                "pass activation='softmax', or --probabilities on the command line, and their "
                "logits are stored. If these are logits, subtract 1 from all of them, which "
                "changes no probability",
            )
        )


def _log(values: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(values, FLOOR))
