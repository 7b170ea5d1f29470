"""The student's class of each column of a teacher's output."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _graphs
from keras_kd._checks import problem
from keras_kd._logits import Logits, recognise_logits, remember_logits

ClassIndexes = Sequence[int | None] | Mapping[int, int] | None


class Classes:
    """Where the columns of a teacher's output belong among the classes of the student.

    Args:
        given: a list with the student's class of each column, `None` for a column that the student
            does not have; or a dict from columns to classes, which leaves the other columns out.

    Raises:
        ValueError: if it is neither, or a class comes twice.
    """

    def __init__(self, given: Any) -> None:
        try:
            self._by_column = _by_column(given)
        except TypeError:
            self._by_column = {}
        self._width = None if _is_dict(given) or not self._by_column else len(given)
        found = list(self._by_column.values())
        if not found or min(*found, *self._by_column) < 0 or len(set(found)) < len(found):
            raise problem(
                f"{given!r:.200} among classes",
                "a list of different class indexes, from 0, or None for a column that the "
                "student does not have; or a dict from columns to classes",
                "pass for example classes=[[0, 1, 2], [2, None, 3]], or {17: 0, 40: 1} for one "
                "of them",
            )

    @property
    def config(self) -> list[Any] | dict[str, list[int]]:
        """What makes the same object again, in a form that files hold."""
        if self._width is not None:
            return [self._by_column.get(column) for column in range(self._width)]
        return {"columns": list(self._by_column), "classes": list(self._by_column.values())}

    def select(self, output: Any, name: str) -> tuple[Any, tuple[int, ...]]:
        """The columns of an output that the student has, in the order of its classes.

        Args:
            output: tensor of shape `(batch, ..., columns)`, values not needed.
            name: the teacher's, for messages.

        Returns:
            The tensor of shape `(batch, ..., known)` and the student's class of each column.

        Raises:
            ValueError: if the output has another number of columns.
        """
        width = output.shape[-1]
        if self._width not in (None, width) or max(self._by_column) >= width:
            raise problem(
                f"{self._width or max(self._by_column) + 1} classes for the member {name!r}, "
                f"whose output has the shape {tuple(output.shape)}",
                "one class of the student for each of its columns",
                f"list {width} class indexes for it in classes=[...], with None for columns "
                "that the student does not have, or give a dict from columns to classes",
            )
        pairs = sorted((index, column) for column, index in self._by_column.items())
        columns = [column for _, column in pairs]
        return take_columns(output, columns), tuple(index for index, _ in pairs)


def take_columns(output: Any, columns: Sequence[int]) -> Any:
    """Columns of the last axis of an output, and of what is remembered of its logits."""
    if list(columns) == list(range(output.shape[-1])):
        return output
    if _graphs.is_symbolic(output):
        return keras.KerasTensor((*output.shape[:-1], len(columns)))
    seen = recognise_logits(output)
    changed: dict[str, Any] = {"logits": ops.take(seen.logits, list(columns), axis=-1)}
    if seen.classes is not None:
        # Columns of several distributions are none.
        changed |= {"classes": None, "activation": None}
    if seen.members is not None:
        changed["members"] = ops.take(seen.members, list(columns), axis=-1)
    if seen.known is not None:
        changed["known"] = np.asarray(seen.known)[:, list(columns)]
    taken = ops.take(output, list(columns), axis=-1)
    remember_logits(taken, dataclasses.replace(seen, **changed))
    return taken


def mark_classes(output: Any, classes: Sequence[int]) -> Any:
    """Note on an output which of the student's classes its columns are."""
    if _graphs.is_symbolic(output):
        # One of its own: a model's own outputs are not to be marked.
        output = keras.KerasTensor(tuple(output.shape))
        seen = Logits(output, None)
    else:
        output, seen = ops.copy(output), recognise_logits(output)
    remember_logits(output, dataclasses.replace(seen, taught=tuple(classes)))
    return output


def check_all_known(classes: Sequence[int], given: Any) -> None:
    """Check that no class is left out, where no student defines how many there are.

    Raises:
        ValueError: if one is.
    """
    unknown = sorted(set(range(max(classes) + 1)) - set(classes))
    if unknown:
        raise problem(
            f"classes={given}, in which no member has the classes {unknown}",
            f"every class from 0 to {max(classes)} in one list at least",
            "add a member that has them, or number the student's classes without gaps; in a "
            "keras_kd.Distiller the student may have more classes than the teacher has",
        )


def _is_dict(given: Any) -> bool:
    return isinstance(given, Mapping)


def _by_column(given: Any) -> dict[int, int]:
    if _is_dict(given) and set(given) == {"columns", "classes"}:
        given = dict(zip(given["columns"], given["classes"], strict=True))
    pairs = given.items() if _is_dict(given) else enumerate(given)
    return {
        operator.index(column): operator.index(index)
        for column, index in pairs
        if index is not None
    }
