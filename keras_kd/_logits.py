"""The logits behind a model's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _backends, _distributions, _keras, _probabilities
from keras_kd._checks import problem, three_parts
from keras_kd._distributions import DERIVED, LOGITS, UNKNOWN
from keras_kd._operations import operation_of

# The logarithm of a probability that is 0, for float32: infinity would turn products into NaN.
IMPOSSIBLE = -1e9

OTHER_AXIS = "softmax over another axis than the last"


@dataclass(frozen=True)
class Top:
    """The k largest logits: their classes, and the mass of all the others.

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
        known: where members have a part of the classes only, a boolean array of shape
            `(models, classes)` that marks them.
        top: where `logits` are the k largest only, which these are and what the others weigh.
        classes: of a softmax, how many classes a distribution has, where several stand one after
            another on the last axis; `None` where the last axis is one.
        origin: where no activation is seen, what is known: see the words of `_distributions`.
        taught: where a teacher has a part of the student's classes only, which of them its
            columns are, in order.
    """

    logits: Any
    activation: str | None
    members: Any = None
    shares: Any = None
    known: Any = None
    top: Top | None = None
    classes: int | None = None
    origin: str = UNKNOWN
    taught: tuple[int, ...] | None = None

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
        # A class that a member does not have has the probability 0 in its distribution. On and off
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
        if self.classes is not None:
            softened = _distributions.split_rows(softened, self.classes)
            log_shares = ops.expand_dims(log_shares, axis=-1)
        mean = ops.logsumexp(ops.log_softmax(softened, axis=-1) + log_shares, axis=0)
        if self.classes is not None:
            mean = ops.reshape(mean, ops.shape(self.members)[1:])
        return ops.cast(temperature * mean, self.logits.dtype)

    def in_rows(self, classes: int) -> Logits:
        """The same with one distribution on the last axis, shape `(batch, ..., k, classes)`."""
        return self.changed(lambda rows: _distributions.split_rows(rows, classes), classes=None)

    def changed(self, change: Callable[[Any], Any], **others: Any) -> Logits:
        """The same with all its tensors changed by a function."""
        members = None if self.members is None else change(self.members)
        return dataclasses.replace(self, logits=change(self.logits), members=members, **others)


def class_shares(shares: Any, known: Any) -> np.ndarray:
    """The share of each member in the mean of each class: its own among those that have the class.

    Args:
        shares: array of shape `(models,)`.
        known: `None` or a boolean array of shape `(models, classes)`; each class is known to a
            model.

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

    In a traced graph, and within `noting`, the operations behind the tensor are followed back to
    the softmax or sigmoid. Elsewhere those of Keras 3 and tf_keras leave their input on the tensor
    that they return, where their cross-entropies look for it. Going back to the logits is exact;
    the logarithm of a probability that has become 0 is not.
    """
    remembered = _backends.noted(output, "_keras_kd_logits")
    if remembered is not None:
        return remembered
    found = _probabilities.behind(output)
    if isinstance(found, _distributions.Found):
        return _recognised(output, found)
    own = _keras.at_least_float32(output)
    logits = getattr(output, "_keras_logits", None)
    if logits is None or operation_of(output) is not None:
        return Logits(own, None, origin=found)
    logits = _keras.at_least_float32(logits)
    possible = _activations_between(logits, output)
    if not possible:
        return Logits(logits, OTHER_AXIS)
    return Logits(logits, possible[0] if len(possible) == 1 else None)


def _recognised(output: Any, found: _distributions.Found) -> Logits:
    """What was found behind an output, with the classes on its last axis."""
    if found.activation == "sigmoid":
        if found.is_whole:
            return Logits(found.logits, "sigmoid")
        return Logits(_keras.at_least_float32(output), None, origin=DERIVED)
    width = output.shape[-1] if len(output.shape) else None
    if found.axis == -1 and found.classes == width:
        return Logits(found.logits, "softmax")
    classes = found.classes
    if found.axis != -1 or classes is None or width is None or width % classes:
        return Logits(found.logits, OTHER_AXIS)
    return Logits(found.logits, "softmax", classes=classes)


@contextmanager
def noting() -> Iterator[Callable[[Any], None]]:
    """Within this context, outside of traced functions, `recognise_logits` sees operations.

    Yields:
        A function that takes a structure of outputs, and whose logits are known from then on.
    """
    with _probabilities.noting() as is_noting:

        def remember(outputs: Any) -> None:
            for output in keras.tree.flatten(outputs) if is_noting else ():
                if "float" in keras.backend.standardize_dtype(output.dtype):
                    remember_logits(output, recognise_logits(output))

        yield remember


def common_rows(teacher: Logits, student: Logits) -> tuple[Logits, Logits]:
    """Both with one distribution on the last axis, where one of them shows that it has several.

    Raises:
        ValueError: if the two have distributions of different sizes.
    """
    sizes = {one.classes for one in (teacher, student) if one.classes is not None}
    if not sizes:
        return teacher, student
    classes = sizes.pop()
    whole = student.logits.shape[-1] if None in (teacher.classes, student.classes) else classes
    if sizes or whole % classes or teacher.top is not None:
        raise problem(
            f"a teacher and a student whose rows of {student.logits.shape[-1]} outputs hold "
            f"distributions of {teacher.classes or 'all'} and {student.classes or 'all'} "
            "classes",
            "distributions over the same classes",
            "give both models the same last layers, best without a Flatten or Reshape after the "
            "softmax",
        )
    return teacher.in_rows(classes), student.in_rows(classes)


def top_of(output: Any) -> Top | None:
    """The `Top` of an output with only its k largest logits; `None` for others."""
    remembered = _backends.noted(output, "_keras_kd_logits")
    return None if remembered is None else remembered.top


def taught_classes(output: Any) -> tuple[int, ...] | None:
    """Which of the student's classes the columns of an output are; `None` for all of them."""
    remembered = _backends.noted(output, "_keras_kd_logits")
    return None if remembered is None else remembered.taught


def remember_logits(output: Any, logits: Logits) -> None:
    """Note the logits behind a tensor that was computed from an output, for `recognise_logits`."""
    _backends.note(output, "_keras_kd_logits", logits)


def _activations_between(logits: Any, output: Any) -> list[str]:
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
        # NaN shows nothing, and is not above the tolerance.
        if not float(ops.max(ops.abs(function(logits) - output))) > tolerance
    ]


def distribution_like(output: Any) -> Any:
    """A boolean per row of `output`, shape `(...)` of `(..., classes)`: could it be a softmax?"""
    output = _keras.at_least_float32(output)
    total = ops.sum(output, axis=-1)
    # Half-precision probabilities of many classes are off by more than float32's epsilon.
    return ops.logical_and(ops.min(output, axis=-1) >= 0.0, ops.abs(total - 1.0) < 1e-2)


def could_be_probabilities(seen: Logits) -> bool:
    """Whether `suspicions` must look at an output; the kind of most is known."""
    return seen.activation is None and seen.origin != LOGITS


def suspicions(output: Any, seen: Logits) -> tuple[list[Any], list[Any]]:
    """Whether the numbers of an output without a known activation could be probabilities.

    Args:
        output: tensor of shape `(batch, ...)`.
        seen: what `recognise_logits` gives for it.

    Returns:
        Two lists of boolean scalars: whether the rows are distributions, and whether the entries
        are probabilities otherwise.
    """
    rows, entries = [], []
    for values in [output] if seen.members is None else ops.unstack(seen.members):
        values = _keras.at_least_float32(values)
        if len(values.shape) > 1 and values.shape[-1] != 1:
            rows.append(ops.all(distribution_like(values)))
        entries.append(_are_probabilities(values, seen.origin))
    return rows, entries


def _are_probabilities(values: Any, origin: str) -> Any:
    """Whether no entry shows that these are no probabilities."""
    derived = origin == DERIVED
    # Dropout has doubled some of those that are known to have been probabilities.
    inside = ops.logical_and(ops.min(values) >= 0.0, ops.max(values) <= (2.0 if derived else 1.0))
    if derived:
        return inside
    # Few entries can lie there by chance, zeros are no probabilities, and what has length 1
    # is an embedding.
    chance = ops.logical_or(ops.size(values) < 8, ops.max(values) == 0.0)
    lengths = ops.sum(ops.square(values), axis=-1)
    directions = ops.all(ops.abs(lengths - 1.0) < 1e-3)
    return ops.logical_and(inside, ops.logical_not(ops.logical_or(chance, directions)))


def said_of_probabilities(role: str, name: str, kind: str) -> str:
    """What is wrong with outputs that are probabilities, for a warning.

    Args:
        role: `"teacher"` or `"student"`.
        name: the model's name.
        kind: `"rows"` where each row is a distribution, `"entries"` where each entry is
            one of its own, or `"joined"` where an output holds several kinds.
    """
    if kind == "joined":
        return three_parts(
            f"an output of the {role} {name!r} that joins probabilities of several kinds, or "
            "probabilities and numbers",
            "logits, or one kind of probabilities in each output",
            "give both models an output for each kind, keras.Model(inputs, [first, second])",
        )
    end, function = {
        "rows": ("keras.layers.Softmax", "log(maximum(p, 1e-7))"),
        "entries": ("keras.layers.Activation('sigmoid')", "log(p / (1 - p))"),
    }[kind]
    fix = {
        "teacher": f"end the teacher in {end}, or give {function} of its output p: for a model "
        "keras.Sequential([teacher, keras.layers.Activation(function)]), for a function as what it "
        "returns",
        "student": f"end the student in {end} with nothing behind it but changes of shape, or in "
        "logits with a loss on labels of from_logits=True",
    }[role]
    return three_parts(
        f"outputs of the {role} {name!r} that are probabilities, made by something other than a "
        "softmax or sigmoid of Keras or TensorFlow at its end",
        "logits, or probabilities whose logits can be seen; with a temperature applied to "
        "probabilities the student learns almost nothing",
        fix,
    )
