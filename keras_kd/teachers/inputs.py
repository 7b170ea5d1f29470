"""Which part of the data the teacher sees, and which the student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_kd._checks import problem

TeacherInputs = str | Sequence[str] | Callable[[Any], Any] | None


class Inputs:
    """Divides a batch between the two models.

    Args:
        teacher_inputs: what the teacher sees. `None`: the same as the student. A function: what it
            makes of the batch, of which the student sees all. The name of an entry of dict inputs,
            or several: these entries, and the student sees the others; a single one is not in a
            dict.

    Raises:
        TypeError: if it is none of these.
    """

    def __init__(self, teacher_inputs: TeacherInputs = None) -> None:
        self.teacher_inputs = teacher_inputs
        if teacher_inputs is None or callable(teacher_inputs):
            self._names: list[str] = []
            return
        names = [teacher_inputs] if isinstance(teacher_inputs, str) else teacher_inputs
        is_list = isinstance(names, list | tuple) and len(names) > 0
        if not is_list or not all(isinstance(name, str) for name in names):
            raise TypeError(
                problem(
                    f"teacher_inputs={teacher_inputs!r}",
                    "None, a function of the inputs, or names of entries of dict inputs",
                    "pass for example 'large' for inputs {'small': ..., 'large': ...}",
                )
            )
        self._names = list(names)

    @property
    def are_shared(self) -> bool:
        """Whether both models see the same."""
        return self.teacher_inputs is None

    def check(self, x: Any) -> None:
        """Check that a batch has what the teacher is to see.

        Raises:
            ValueError: if it has no such entries.
        """
        entries = set(x) if isinstance(x, dict) else set()
        if set(self._names) <= entries:
            return
        raise ValueError(
            problem(
                f"inputs {sorted(entries) if entries else type(x).__name__} with "
                f"teacher_inputs={self.teacher_inputs!r}",
                "a dict of inputs that has these entries",
                "name the entries of the data, or give a function of the inputs",
            )
        )

    def reach_teacher(self, x: Any) -> bool:
        """Whether a batch has something for the teacher: always, see `check`."""
        return True

    def of_teacher(self, x: Any) -> Any:
        """What the teacher sees of a batch.

        Raises:
            ValueError: if the batch has no such entries.
        """
        if callable(self.teacher_inputs):
            return self.teacher_inputs(x)
        self.check(x)
        if not self._names:
            return x
        return (
            x[self._names[0]] if len(self._names) == 1 else {name: x[name] for name in self._names}
        )

    def of_student(self, x: Any) -> Any:
        """What the student sees of a batch; a batch without the teacher's part is for it alone."""
        if not self._names or not isinstance(x, dict):
            return x
        rest = {name: value for name, value in x.items() if name not in self._names}
        return next(iter(rest.values())) if len(rest) == 1 else rest
