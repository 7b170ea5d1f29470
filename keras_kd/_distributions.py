"""Operations on probabilities, applied to the logits behind them instead."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_kd._operations import Operation, constant, moved_axis, operation_of, repeated

# What a tensor is that no softmax and no sigmoid explains:
LOGITS = "logits"  # the result of a layer that does not make probabilities
UNKNOWN = "unknown"  # of something that may make them
DERIVED = "derived"  # computed from probabilities in a way that cannot be undone
JOINED = "joined"  # probabilities in one tensor with others of another kind, or with numbers

# Additions and limits that guard a logarithm change no probability by more than this.
_GUARD = 1e-3
_IMPOSSIBLE = -1e9


@dataclasses.dataclass(frozen=True)
class Found:
    """Probabilities: mass * activation(logits).

    Attributes:
        logits: tensor of the shape of the probabilities, at least float32.
        activation: `"softmax"` or `"sigmoid"`.
        axis: for a softmax the axis of the classes, counted from the end; `None` if they are spread
            over several. On the last axis several distributions may stand one after another.
        classes: how many classes one distribution has; `None` where that is not known.
        mass: 1, or what sums of distributions make of it.
        opposite: for 1 - p of a sigmoid, the logits of p.
    """

    logits: Any
    activation: str
    axis: int | None = None
    classes: int | None = None
    mass: float = 1.0
    opposite: Any = None

    @property
    def is_whole(self) -> bool:
        """Whether no sum or factor is left to be undone."""
        return abs(self.mass - 1.0) <= _GUARD

    def log_probabilities(self) -> Any:
        """The logarithm of a softmax, all distributions normalized."""
        if self.axis != -1 or self.logits.shape[-1] == self.classes:
            return ops.log_softmax(self.logits, axis=self.axis)
        assert self.classes is not None
        rows = ops.log_softmax(split_rows(self.logits, self.classes), axis=-1)
        return ops.reshape(rows, ops.shape(self.logits))


Behind = Found | str


def split_rows(tensor: Any, classes: int) -> Any:
    """A tensor of shape `(..., k * classes)` as `(..., k, classes)`."""
    shape = ops.shape(tensor)
    return ops.reshape(tensor, (*shape[:-1], tensor.shape[-1] // classes, classes))


def of_other_logits(found: Found, logits: Any, **changes: Any) -> Found:
    """The same of other logits, which are no longer the opposite of known ones."""
    return dataclasses.replace(found, logits=logits, opposite=None, **changes)


# One input: what moves or selects entries is done to the logits.


def _reshaped(operation: Operation, found: Found, output: Any) -> Behind:
    """Each `classes` entries in a row stay a distribution in every shape."""
    if operation.kind in ("ExpandDims", "Squeeze") and found.axis not in (None, -1):
        return _moved(operation, found, output)
    if found.axis != -1:
        return of_other_logits(found, repeated(operation, found.logits), axis=None)
    if found.classes is None or not output.shape.rank or output.shape[-1] is None:
        return DERIVED
    return of_other_logits(found, repeated(operation, found.logits))


def _moved(operation: Operation, found: Found, output: Any) -> Behind:
    place = 1 if operation.kind == "Split" else 0
    axis, classes = found.axis, found.classes
    width = None if axis is None else found.logits.shape[axis]
    if axis is None or width is None or classes is None or width % classes:
        return of_other_logits(found, repeated(operation, found.logits, place), axis=None)
    left = moved_axis(operation, found.logits.shape, axis)
    if left is None:
        return DERIVED
    entries, axis = left
    if len(set(entries)) < len(entries):
        return DERIVED
    if len(entries) == 1:
        # One class of a distribution, against all its others.
        if not found.is_whole or found.classes == 1:
            return DERIVED
        odds = repeated(operation, _log_odds(found), place)
        return Found(odds, "sigmoid")
    classes = _kept_classes(entries, classes)
    if classes is None:
        return DERIVED
    return of_other_logits(
        found, repeated(operation, found.logits, place), axis=axis, classes=classes
    )


def _kept_classes(entries: np.ndarray, classes: int) -> int | None:
    """How many classes the distributions have of which these entries are left."""
    owners = entries // classes
    if len(set(owners)) == 1:
        # Some classes of one distribution: among them their logits are one, too.
        return len(entries)
    if len(entries) % classes:
        return None
    rows = owners.reshape(-1, classes)
    return classes if (rows == rows[:, :1]).all() else None


def _log_odds(found: Found) -> Any:
    """log p - log(1 - p) of each class of a softmax, exact also where p is near 1."""
    logits, axis, classes = found.logits, found.axis, found.classes
    assert axis is not None
    assert classes is not None
    if axis == -1 and logits.shape[-1] != classes:
        rows = _log_odds(of_other_logits(found, split_rows(logits, classes)))
        return ops.reshape(rows, ops.shape(logits))
    largest = ops.max(logits, axis=axis, keepdims=True)
    is_largest = ops.cast(ops.argmax(logits, axis=axis, keepdims=True), "int32")
    places = np.arange(classes, dtype="int32").reshape((-1,) + (1,) * (-axis - 1))
    is_largest = ops.equal(is_largest, places)
    # Without the largest, a sum of exponentials loses at most half: nothing cancels.
    exponentials = ops.exp(logits - largest)
    others = ops.where(is_largest, 1.0, ops.sum(exponentials, axis, keepdims=True) - exponentials)
    without_largest = ops.logsumexp(
        ops.where(is_largest, _IMPOSSIBLE, logits), axis=axis, keepdims=True
    )
    return logits - ops.where(is_largest, without_largest, largest + ops.log(others))


def _mean(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    found = parts[0][1]
    axes = constant(operation.inputs[1])
    if not isinstance(found, Found):
        return DERIVED if found == DERIVED else UNKNOWN
    if axes is None or found.logits.shape.rank is None:
        return DERIVED
    rank = found.logits.shape.rank
    axes = tuple(sorted({int(axis) % rank for axis in axes.reshape(-1)}))
    keep = bool(operation.attribute("keep_dims"))

    def of_logs(values: Any) -> Any:
        mean = ops.logsumexp(values, axis=axes, keepdims=keep)
        number = ops.cast(ops.size(values), mean.dtype) / ops.cast(ops.size(mean), mean.dtype)
        return mean - ops.log(number)

    if found.activation == "sigmoid":
        on, off = (of_logs(ops.log_sigmoid(sign * found.logits)) for sign in (1.0, -1.0))
        return of_other_logits(found, on - off)
    if found.axis is None or rank + found.axis in axes:
        # Over the classes: one number for each distribution, and it is known.
        return UNKNOWN
    later = 0 if keep else sum(axis > rank + found.axis for axis in axes)
    if found.axis == -1 and later == 0:
        return of_other_logits(found, of_logs(found.log_probabilities()))
    return of_other_logits(found, of_logs(found.log_probabilities()), axis=found.axis + later)


# Several inputs.


def _concatenated(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    axis = constant(operation.inputs[-1])
    rank = operation.inputs[0].shape.rank
    if axis is None or rank is None:
        return DERIVED
    return _joined([found for _, found in parts], int(axis) % rank - rank, rank)


def _stacked(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    rank = operation.inputs[0].shape.rank
    if rank is None:
        return DERIVED
    place = operation.attribute("axis") % (rank + 1)
    complements = _are_complements([found for _, found in parts])
    expanded = [
        _expanded(found, place, rank) if isinstance(found, Found) else found for _, found in parts
    ]
    return _joined(expanded, place - rank - 1, rank + 1, complements)


def _expanded(found: Found, place: int, rank: int) -> Found:
    axis = found.axis
    if axis is not None and place > rank + axis:
        axis -= 1
    return of_other_logits(found, ops.expand_dims(found.logits, place), axis=axis)


def _are_complements(parts: Sequence[Behind]) -> bool:
    found = [part for part in parts if isinstance(part, Found)]
    if len(parts) != 2 or len(found) < 2:
        return False
    one, other = found
    return one.activation == "sigmoid" and (
        one.opposite is other.logits or other.opposite is one.logits
    )


def _joined(parts: list[Behind], axis: int, rank: int, complements: bool | None = None) -> Behind:
    found = [part for part in parts if isinstance(part, Found)]
    if len(found) < len(parts):
        words = {part for part in parts if not isinstance(part, Found)}
        if not found:
            return words.pop() if len(words) == 1 else JOINED if DERIVED in words else UNKNOWN
        return DERIVED if words == {DERIVED} else JOINED
    first = found[0]
    if not all(part.is_whole for part in found):
        return DERIVED
    if len({part.activation for part in found}) > 1:
        return JOINED
    logits = ops.concatenate([part.logits for part in found], axis=axis)
    if first.activation == "sigmoid":
        if complements is None:
            complements = _are_complements(found)
        if complements and axis == -1 and logits.shape[-1] == 2:
            # p and 1 - p are one distribution over two classes.
            return Found(logits / 2.0, "softmax", -1, 2)
        return Found(logits, "sigmoid")
    same = len({(part.axis, part.classes) for part in found}) == 1
    if not same or first.axis is None or first.classes is None or axis == first.axis != -1:
        return JOINED
    return of_other_logits(first, logits)


def _added(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    found, numbers, word = _apart(parts)
    if word is not None:
        # Such as the sum with a bias.
        return LOGITS if LOGITS in [part for _, part in parts] else word
    total = sum(numbers)
    first = found[0]
    if len(found) > 1:
        if not _alike(found):
            return DERIVED
        mass = sum(part.mass for part in found)
        first = of_other_logits(first, _logits_of_mixture(found), mass=mass)
    if abs(total) <= _GUARD:
        return first
    if first.activation != "softmax" or total < 0.0 or first.classes is None or first.axis is None:
        return DERIVED
    shares = first.log_probabilities() + math.log(first.mass)
    logits = ops.logaddexp(shares, ops.cast(math.log(total), shares.dtype))
    return of_other_logits(first, logits, mass=first.mass + first.classes * total)


def _logits_of_mixture(found: Sequence[Found]) -> Any:
    """The logits of a weighted mean of probabilities."""
    weights = [math.log(part.mass) for part in found]

    def mixed(logs: list[Any]) -> Any:
        stacked = ops.stack([log + weight for log, weight in zip(logs, weights, strict=True)])
        return ops.logsumexp(stacked, axis=0)

    if found[0].activation == "softmax":
        total = math.log(sum(part.mass for part in found))
        return mixed([part.log_probabilities() for part in found]) - total
    on, off = (
        mixed([ops.log_sigmoid(sign * part.logits) for part in found]) for sign in (1.0, -1.0)
    )
    return on - off


def _alike(found: Sequence[Found]) -> bool:
    first = found[0]
    about = (first.activation, first.axis, first.classes, tuple(first.logits.shape))
    return all(
        (part.activation, part.axis, part.classes, tuple(part.logits.shape)) == about
        for part in found
    ) and (first.activation == "sigmoid" or first.axis is not None)


def _subtracted(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    found, numbers, word = _apart(parts)
    if word is not None:
        return LOGITS if LOGITS in [part for _, part in parts] else word
    from_one = len(found) == 1 and parts[1][1] is found[0] and abs(sum(numbers) - 1.0) <= _GUARD
    if from_one and found[0].activation == "sigmoid" and found[0].is_whole:
        return Found(-found[0].logits, "sigmoid", opposite=found[0].logits)
    if len(found) == 1 and parts[0][1] is found[0] and abs(sum(numbers)) <= _GUARD:
        return found[0]
    return DERIVED


def _multiplied(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    found, numbers, word = _apart(parts)
    if word is not None:
        return _of_scaled(parts) if word == UNKNOWN else word
    if len(found) > 1:
        return DERIVED
    return _scaled(found[0], math.prod(numbers))


def _selected(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    """The Softmax of Keras takes a mask out of the logits, and puts 0 there once more."""
    found = parts[0][1]
    masked = isinstance(found, Found) and found.activation == "softmax" and found.is_whole
    # Dropout scales what it leaves.
    if masked and _number(parts[1][0]) == 0.0:
        return found
    return _computed(operation, parts)


def _divided(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    (dividend, found), (divisor, _) = parts
    if isinstance(found, Found) and _is_sum_of(divisor, dividend, found):
        return dataclasses.replace(found, mass=1.0)
    several, numbers, word = _apart(parts)
    if word is not None:
        return _of_scaled(parts) if word == UNKNOWN else word
    if len(several) > 1 or several[0] is not found or not numbers[0]:
        return DERIVED
    return _scaled(several[0], 1.0 / numbers[0])


def _is_sum_of(divisor: Any, dividend: Any, found: Found) -> bool:
    """Whether this divides a part of a softmax by its sum, so that it is a distribution again."""
    operation = operation_of(divisor)
    if operation is None or operation.kind != "Sum" or operation.inputs[0] is not dividend:
        return False
    axes = constant(operation.inputs[1])
    rank = found.logits.shape.rank
    return (
        found.activation == "softmax"
        and found.axis is not None
        and bool(operation.attribute("keep_dims"))
        and found.logits.shape[found.axis] == found.classes
        and axes is not None
        and [int(axis) % rank for axis in axes.reshape(-1)] == [rank + found.axis]
    )


def _scaled(found: Found, factor: float) -> Behind:
    return dataclasses.replace(found, mass=found.mass * factor) if factor > 0.0 else DERIVED


def _of_scaled(parts: Sequence[tuple[Any, Behind]]) -> str:
    """What a multiple of logits is; of two tensors nothing is known."""
    words = [found for part, found in parts if _number(part) is None]
    return LOGITS if words == [LOGITS] else UNKNOWN


def _limited(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    found, numbers, word = _apart(parts)
    if word is not None:
        return word
    limits = {"Maximum": (0.0, _GUARD), "Minimum": (1.0 - _GUARD, math.inf)}
    bounds = limits.get(operation.kind)
    if bounds is None:
        guards = numbers[0] <= _GUARD and numbers[-1] >= 1.0 - _GUARD
    else:
        guards = all(number <= bounds[1] and number >= bounds[0] - _GUARD for number in numbers)
    return found[0] if guards and len(found) == 1 and found[0].is_whole else DERIVED


def _computed(operation: Operation, parts: Sequence[tuple[Any, Behind]]) -> Behind:
    """Anything else that is computed: derived from probabilities if from nothing else."""
    _, _, word = _apart(parts)
    return DERIVED if word is None else word


def _apart(
    parts: Sequence[tuple[Any, Behind]],
) -> tuple[list[Found], list[float], str | None]:
    """Probabilities and plain numbers; a word where there is anything else, or nothing at all."""
    found, numbers, words = [], [], set()
    for tensor, part in parts:
        number = None if isinstance(part, Found) else _number(tensor)
        if isinstance(part, Found):
            found.append(part)
        elif number is not None and part != DERIVED:
            numbers.append(number)
        else:
            words.add(part)
    if not words and found:
        return found, numbers, None
    return found, numbers, DERIVED if words == {DERIVED} else UNKNOWN


def _number(tensor: Any) -> float | None:
    """The value of a constant of one number."""
    operation = operation_of(tensor)
    if operation is not None and operation.kind != "Const":
        return None
    value = constant(tensor)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


ONE_INPUT: dict[str, Callable[[Operation, Found, Any], Behind]] = {
    "ExpandDims": _reshaped,
    "GatherV2": _moved,
    "Reshape": _reshaped,
    "ReverseV2": _moved,
    "Slice": _moved,
    "Split": _moved,
    "SplitV": _moved,
    "Squeeze": _reshaped,
    "StopGradient": lambda operation, found, _: of_other_logits(
        found, repeated(operation, found.logits)
    ),
    "StridedSlice": _moved,
    "Transpose": _moved,
    "Unpack": _moved,
}
SEVERAL: dict[str, Callable[[Operation, Sequence[tuple[Any, Behind]]], Behind]] = {
    "Add": _added,
    "AddN": _added,
    "AddV2": _added,
    "BroadcastTo": _computed,
    "ClipByValue": _limited,
    "ConcatV2": _concatenated,
    "Max": _computed,
    "Maximum": _limited,
    "Mean": _mean,
    "Min": _computed,
    "Minimum": _limited,
    "Mul": _multiplied,
    "Pack": _stacked,
    "Pow": _computed,
    "Prod": _computed,
    "RealDiv": _divided,
    "SelectV2": _selected,
    "Sqrt": _computed,
    "Square": _computed,
    "Sub": _subtracted,
    "Sum": _computed,
    "Tile": _computed,
}
