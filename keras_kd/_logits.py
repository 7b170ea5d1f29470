"""The logits behind a model's output: going back from probabilities to what they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _keras

# The logarithm of a probability that is 0, for float32: infinity would turn products into NaN.
IMPOSSIBLE = -1e9

OTHER_AXIS = "softmax over another axis than the last"


@dataclass(frozen=True)
class Top:
    """What belongs to logits of which the k largest are known, and the mass of all the others.

    Where only shapes are needed, the tensors may be `None`.

    Attributes:
        classes: integer tensor of shape `(batch, ..., k)`, the classes of the logits.
        rest: for each temperature T of which it is known a tensor of shape `(batch, ...)`,
            log sum exp(z_c / T) over the other classes c; -inf where there is no mass.
        number_of_classes: of all.
    """

    classes: Any
    rest: Mapping[float, Any]
    number_of_classes: int


@dataclass(frozen=True)
class Logits:
    """An output's logits, and the activation that they went through where one is seen.

    Attributes:
        logits: tensor of the output's shape, at least float32.
        activation: `"softmax"`, `"sigmoid"`, `OTHER_AXIS`, or `None` where none or either can be.
        members: for the mean of the probabilities of several models, their logits, of shape
            `(models, batch, ..., classes)`; such a mean depends on the temperature.
        shares: one share per member, an array with the sum 1.
        known: where members know a part of the classes only, a boolean array of shape
            `(models, classes)` that says which.
        top: where `logits` are the k largest only, which these are and what the others weigh.
        classes: where a teacher knows a part of the student's classes only, which of them its
            columns are, in order.
    """

    logits: Any
    activation: str | None
    members: Any = None
    shares: Any = None
    known: Any = None
    top: Top | None = None
    classes: tuple[int, ...] | None = None

    def at(self, temperature: Any, activation: str) -> Any:
        """Logits that, divided by the temperature, give the output's softened probabilities.

        Args:
            temperature: what the members' logits are divided by before their mean is taken.
            activation: `"softmax"` or `"sigmoid"`, what turns logits into probabilities.

        Returns:
            A tensor of the shape and dtype of `logits`, which it is but for a mean of
            probabilities.
        """
        if self.members is None:
            return self.logits
        softened = self.members / temperature
        # A class that a member does not know has the probability 0 in its distribution. On and off
        # are a distribution for each class, and the member has none for this one.
        own = activation == "sigmoid"
        shares = class_shares(self.shares, self.known if own else None)
        log_shares = np.where(shares > 0, np.log(np.maximum(shares, 1e-300)), IMPOSSIBLE)
        log_shares = ops.cast(per_member(log_shares, softened), softened.dtype)
        if own:
            mean_on, mean_off = (
                ops.logsumexp(ops.log_sigmoid(sign * softened) + log_shares, axis=0)
                for sign in (1.0, -1.0)
            )
            return ops.cast(temperature * (mean_on - mean_off), self.logits.dtype)
        if self.known is not None:
            softened = ops.where(per_member(self.known, softened), softened, IMPOSSIBLE)
        mean = ops.logsumexp(ops.log_softmax(softened, axis=-1) + log_shares, axis=0)
        return ops.cast(temperature * mean, self.logits.dtype)


def class_shares(shares: Any, known: Any = None) -> np.ndarray:
    """The share that each member has in the mean of each class: its own among those who know it.

    Args:
        shares: array of shape `(models,)`.
        known: `None` or a boolean array of shape `(models, classes)`; somebody knows each class.

    Returns:
        An array of shape `(models, 1)` or `(models, classes)` whose columns have the sum 1.
    """
    columns = np.asarray(shares, dtype="float64")[:, None]
    if known is not None:
        columns = columns * np.asarray(known)
    return columns / columns.sum(axis=0)


def per_member(columns: Any, members: Any) -> Any:
    """An array of shape `(models, classes)` so that it multiplies `(models, ..., classes)`."""
    columns = np.asarray(columns)
    inner = (1,) * (len(members.shape) - 2)
    return np.reshape(columns, (columns.shape[0], *inner, columns.shape[1]))


def recognise_logits(output: Any) -> Logits:
    """The logits behind a model's output tensor; the output itself where no activation is seen.

    The softmax and sigmoid of both Kerases leave their input on the tensor that they return,
    where their cross-entropies look for it, and in a traced graph the operation can be read. Going
    back to the logits is exact; the logarithm of a probability that has become 0 is not.
    """
    remembered = getattr(output, "_keras_kd_logits", None)
    if remembered is not None:
        return remembered
    operation = _operation_type(output)
    logits = getattr(output, "_keras_logits", None)
    if logits is None and operation in ("Softmax", "Sigmoid"):
        logits = output.op.inputs[0]
    if logits is None:
        return Logits(_keras.at_least_float32(output), None)
    logits = _keras.at_least_float32(logits)
    if operation is None:
        possible = _activationsper_member(logits, output)
    else:
        # TensorFlow computes a softmax over another axis between two Transpose operations.
        possible = {"Sigmoid": ["sigmoid"], "Transpose": []}.get(operation, ["softmax"])
    if not possible:
        return Logits(logits, OTHER_AXIS)
    return Logits(logits, possible[0] if len(possible) == 1 else None)


def top_of(output: Any) -> Top | None:
    """What is known of an output of which only the k largest logits are; `None` for others."""
    remembered = getattr(output, "_keras_kd_logits", None)
    return None if remembered is None else remembered.top


def classes_of(output: Any) -> tuple[int, ...] | None:
    """Which of the student's classes the columns of an output are; `None` for all of them."""
    remembered = getattr(output, "_keras_kd_logits", None)
    return None if remembered is None else remembered.classes


def remember_logits(output: Any, logits: Logits) -> None:
    """Note the logits behind a tensor that was computed from an output, for `recognise_logits`."""
    output._keras_kd_logits = logits


def _activationsper_member(logits: Any, output: Any) -> list[str]:
    """Which activations can have made an eager `output` from `logits`: both for logits near 0."""
    functions = {"softmax": ops.softmax, "sigmoid": ops.sigmoid}
    if len(logits.shape) == 0 or logits.shape[-1] == 1:
        del functions["softmax"]
    # Half precision is a few units in its last place off.
    precision = keras.backend.standardize_dtype(output.dtype)
    tolerance = {"float16": 1e-2, "bfloat16": 6e-2}.get(precision, 1e-5)
    output = _keras.at_least_float32(output)
    return [
        name
        for name, function in functions.items()
        # NaN tells nothing, and is not above the tolerance.
        if not float(ops.max(ops.abs(function(logits) - output))) > tolerance
    ]


def distribution_like(output: Any) -> Any:
    """A boolean per row of `output`, shape `(...)` of `(..., classes)`: could it be a softmax?"""
    output = _keras.at_least_float32(output)
    total = ops.sum(output, axis=-1)
    # Half-precision probabilities of many classes are off by more than float32's epsilon.
    return ops.logical_and(ops.min(output, axis=-1) >= 0.0, ops.abs(total - 1.0) < 1e-2)


def _operation_type(tensor: Any) -> str | None:
    """The kind of TensorFlow operation a traced tensor comes from; `None` for other tensors."""
    try:
        return tensor.op.type
    except (AttributeError, RuntimeError):
        return None
