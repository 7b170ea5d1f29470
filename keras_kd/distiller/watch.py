"""Checks of the models' outputs in a compiled step, reported after the step."""

from __future__ import annotations

import dataclasses
import math
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_kd import _backends, _logits, _replicas
from keras_kd._checks import problem
from keras_kd._distributions import JOINED

# Added to the count for each model with probabilities that are no distributions.
_ENTRIES = 1000


class ProbabilityWatch:
    """Finds outputs that are probabilities where a loss needs logits, and warns once.

    Args:
        role: `"teacher"` or `"student"`.
        name: the model's name, for the message.
    """

    def __init__(self, role: str, name: str) -> None:
        self._role = role
        self._name = name
        self._found = _counter(-1)
        self._joined = False
        self._reported = False

    @property
    def notes(self) -> list[keras.Variable]:
        """What a step writes down."""
        return [self._found]

    def look(self, outputs: list[Any]) -> None:
        """Note whether any of these outputs, which a loss softens, could be probabilities."""
        if self._reported or _learns_shapes(outputs):
            return
        seen = [(output, _logits.recognise_logits(output)) for output in outputs]
        self._joined |= any(one.origin == JOINED for _, one in seen)
        open_ones = [(output, one) for output, one in seen if _logits.could_be_probabilities(one)]
        if open_ones:
            # Once is enough, and a compiled step does not change.
            known = ops.convert_to_tensor(self._found)
            self._found.assign(
                ops.cond(known < 0, lambda: self._seen_in(open_ones, known.dtype), lambda: known)
            )
        if _backends.runs_eagerly():
            self.report()

    def _seen_in(self, outputs: list[tuple[Any, _logits.Logits]], dtype: Any) -> Any:
        found = [_logits.suspicions(output, seen) for output, seen in outputs]
        rows = [one for in_rows, _ in found for one in in_rows] or [ops.convert_to_tensor(False)]
        entries = [one for _, by_entry in found for one in by_entry]
        in_rows, by_entry = (
            ops.cast(ops.any(ops.stack(flags)), dtype) for flags in (rows, entries)
        )
        return in_rows + _ENTRIES * by_entry

    def report(self) -> None:
        """Warn of what the first step noted."""
        if self._reported:
            return
        self._reported = True
        found = int(_backends.value_of(self._found))
        if found > 0 or self._joined:
            kind = "joined" if self._joined else "rows" if found % _ENTRIES else "entries"
            warnings.warn(_logits.said_of_probabilities(self._role, self._name, kind), stacklevel=2)


class TeacherWatch:
    """Finds teachers whose outputs are NaN, infinity, or probabilities where logits are needed.

    A compiled step cannot raise a readable error (under XLA it cannot raise at all), so the step
    notes what it found and Python reads the note after the step.

    Args:
        name: the teacher's name, for messages.
        softened: whether a loss divides the outputs by a temperature, which only logits allow,
            where `look` gets none.

    Attributes:
        probabilities: looks for the latter.
    """

    def __init__(self, name: str, softened: bool = True) -> None:
        self._name = name
        self._not_finite = _counter()
        self._softened = softened
        self.probabilities = ProbabilityWatch("teacher", name)
        self._first_step_seen = False
        # Replicas take turns in the middle of a step, each in another thread.
        self._seen = threading.local()

    def look(self, outputs: Any, softened: list[Any] | None = None) -> Any:
        """Note what is wrong with a batch of outputs; return them with 0 for what is not finite.

        With the zeros one bad batch does not turn the student's weights into NaN before Python
        reads the note. No gradient flows back into the result.

        Args:
            outputs: a structure of tensors.
            softened: those among them that a loss divides by a temperature, where known.
        """
        if _learns_shapes(outputs):
            return outputs
        flat = [tensor for tensor in keras.tree.flatten(outputs) if _is_float(tensor)]
        if softened is None:
            softened = flat if self._softened else []
        self.probabilities.look(softened)
        tensors = [part for tensor in flat for part in _parts(tensor)]
        clean = iter(self._cleaned(tensors) if tensors else [])
        if _backends.runs_eagerly():
            self.report()
        return keras.tree.map_structure(
            lambda tensor: _replaced(tensor, clean) if _is_float(tensor) else tensor, outputs
        )

    def _cleaned(self, tensors: list[Any]) -> list[Any]:
        """The tensors, with 0 for what is not finite, which is counted."""
        tensors = [ops.stop_gradient(tensor) for tensor in tensors]
        sums = [ops.cast(ops.sum(tensor), "float32") for tensor in tensors]
        # Finite sums have finite terms: one look at each number, and nothing is copied. Terms that
        # are finite can have a sum that is not, so there is a closer look where it is not.
        finite, *clean = ops.cond(
            ops.isfinite(ops.sum(ops.stack(sums))),
            lambda: [ops.convert_to_tensor(True), *tensors],
            lambda: _looked_at_closely(tensors),
        )
        self._not_finite.assign_add(ops.cast(ops.logical_not(finite), self._not_finite.dtype))
        self._seen.finite = finite
        return clean

    def begin(self) -> None:
        """Forget what was noted, where a step that raised an error could not."""
        self._not_finite.assign(0)

    @property
    def notes(self) -> list[keras.Variable]:
        """What a step writes down."""
        return [self._not_finite, *self.probabilities.notes]

    def mark(self, loss: Any) -> Any:
        """The loss for the logs: NaN where the outputs last looked at were not finite."""
        finite, self._seen.finite = getattr(self._seen, "finite", None), None
        return loss if finite is None else ops.where(finite, loss, math.nan)

    def is_due(self, loss: Any) -> bool:
        """Whether the logs of a step are a reason to `report`: reading the notes takes longer.

        Args:
            loss: the mean of what `mark` returned; `None` where the logs do not have it.
        """
        return not self._first_step_seen or loss is None or not math.isfinite(loss)

    def report(self) -> None:
        """Raise or warn of what `look` noted since the last report.

        Raises:
            ValueError: if the teacher's outputs were NaN or infinite.
        """
        if int(_backends.value_of(self._not_finite)):
            self._not_finite.assign(0)
            raise problem(
                f"NaN or infinite outputs from the teacher {self._name!r}",
                "finite outputs, or the student learns nothing",
                "look at teacher.predict(x) for this data: check the teacher's weights, and "
                "that the data have the range and dtype it was trained on",
            )
        self._first_step_seen = True
        self.probabilities.report()


def _looked_at_closely(tensors: list[Any]) -> list[Any]:
    """Whether all is finite, and the tensors with 0 for what is not."""
    are_finite = [ops.isfinite(tensor) for tensor in tensors]
    finite = ops.all(ops.stack([ops.all(is_finite) for is_finite in are_finite]))
    clean = [
        ops.where(is_finite, tensor, ops.zeros_like(tensor))
        for is_finite, tensor in zip(are_finite, tensors, strict=True)
    ]
    return [finite, *clean]


def _counter(begin: int = 0) -> keras.Variable:
    # TensorFlow keeps int32 variables on the CPU, where a step that XLA compiled for a GPU cannot
    # reach them; JAX has no int64 by default.
    dtype = "int64" if keras.backend.backend() == "tensorflow" else "int32"
    return keras.Variable(
        keras.initializers.Constant(begin),
        shape=(),
        dtype=dtype,
        trainable=False,
        aggregation="sum",
        synchronization="on_read",
    )


def _learns_shapes(outputs: Any) -> bool:
    return _replicas.learns_shapes() or _backends.has_no_values(outputs)


def _is_float(tensor: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)


def _parts(tensor: Any) -> list[Any]:
    """An output, and the tensors that are remembered as behind it."""
    seen = _logits.recognise_logits(tensor)
    # Each is looked at once: without an activation an output is its own logits.
    behind = [] if seen.logits is tensor else [seen.logits]
    return [tensor, *behind, *([] if seen.members is None else [seen.members])]


def _replaced(tensor: Any, parts: Iterator[Any]) -> Any:
    """An output made of other `_parts`, the next ones."""
    seen = _logits.recognise_logits(tensor)
    clean = next(parts)
    changed = {"logits": clean if seen.logits is tensor else next(parts)}
    if seen.members is not None:
        changed["members"] = next(parts)
    _logits.remember_logits(clean, dataclasses.replace(seen, **changed))
    return clean
