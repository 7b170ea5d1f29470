"""The part of the data for the teacher, and the part for the student."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_kd._checks import problem

Entry = str | int
ModelInputs = Entry | Sequence[Entry] | Mapping[str, Entry] | Callable[[Any], Any] | None


class Inputs:
    """Divides a batch between the two models.

    An entry of a batch is a key of a dict, or an index of a list or tuple. Each argument is an
    entry, a list of entries, a dict from the names of the model's inputs to entries, or a function
    of the batch.

    Args:
        teacher_inputs: the teacher's inputs. `None`: the whole batch.
        student_inputs: what the student sees. `None`: what `teacher_inputs` does not name, and
            the whole batch where it names nothing. If the student has another number of inputs
            than that, the entries that are called as its inputs are.
        teacher_takes: the names of the teacher's inputs in their structure, see
            `keras_kd._graphs.input_names`; `None` if unknown.
        student_takes: the same of the student.

    Raises:
        TypeError: if an argument is none of these.
    """

    def __init__(
        self,
        teacher_inputs: ModelInputs = None,
        student_inputs: ModelInputs = None,
        *,
        teacher_takes: Any = None,
        student_takes: Any = None,
    ) -> None:
        self.teacher_inputs = teacher_inputs
        self.student_inputs = student_inputs
        self._teacher = _Choice("teacher_inputs", teacher_inputs, teacher_takes)
        self._student = _Choice("student_inputs", student_inputs, student_takes)

    def between(self, teacher_takes: Any, student_takes: Any) -> Inputs:
        """The same division for models with inputs of these names."""
        return Inputs(
            self.teacher_inputs,
            self.student_inputs,
            teacher_takes=teacher_takes,
            student_takes=student_takes,
        )

    @property
    def are_shared(self) -> bool:
        """Whether both models see the same."""
        return self.teacher_inputs is None and self.student_inputs is None

    def check(self, x: Any) -> None:
        """Check that a batch has what the teacher is to see.

        Raises:
            ValueError: if it has no such entries.
        """
        self._teacher.check(x)

    def reach_teacher(self, x: Any) -> bool:
        """Whether a batch has something for the teacher."""
        if callable(self.teacher_inputs) and isinstance(x, dict):
            try:
                self.teacher_inputs(x)
            except KeyError:
                return False
        return self._teacher.is_in(x)

    def of_teacher(self, x: Any) -> Any:
        """The teacher's part of a batch.

        Raises:
            ValueError: if the batch has no such entries.
        """
        self.check(x)
        return self._teacher.part(x)

    def of_student(self, x: Any) -> Any:
        """The student's part of a batch; a batch without the teacher's part is the student's alone.

        Raises:
            ValueError: if a dict has entries, but not those of `student_inputs`.
        """
        entries = _entries(x)
        if callable(self.student_inputs):
            return self.student_inputs(x)
        if self._student.entries:
            if not entries or self._student.is_renamed_in(x):
                return x
            self._student.check(x)
            return self._student.part(x)
        if not self._teacher.entries or not entries:
            return x
        others = {name: x[name] for name in entries if name not in self._teacher.entries}
        part = self._student.fitted(others, x)
        if isinstance(part, dict | list) and not part:
            raise problem(
                f"inputs {entries}, all of which teacher_inputs={self.teacher_inputs!r} names",
                "entries for the student, too",
                "name the student's, for example student_inputs="
                f"{entries[0]!r}; an entry may be in both",
            )
        return part


class _Choice:
    """The entries of a batch for one of the models."""

    def __init__(self, argument: str, given: Any, takes: Any) -> None:
        self._argument = argument
        self._given = given
        self._takes = takes
        self.entries: list[Entry] = []
        self._renamed = isinstance(given, Mapping)
        if given is None or callable(given):
            return
        named = list(given.values()) if self._renamed else given
        listed = list(named) if isinstance(named, list | tuple) else [named]
        if not listed or not all(
            isinstance(entry, str | int) and not isinstance(entry, bool) for entry in listed
        ):
            raise problem(
                f"{argument}={given!r}",
                "None, a function of the inputs, or entries of the inputs: names of a dict's, "
                "indexes of a list's, or a dict from the model's input names to entries",
                "pass for example 'large' for inputs {'small': ..., 'large': ...}",
                kind=TypeError,
            )
        self.entries = listed

    def is_in(self, x: Any) -> bool:
        return set(self.entries) <= set(_entries(x))

    def is_renamed_in(self, x: Any) -> bool:
        """Whether a dict has the names that entries are renamed to, and not the entries."""
        return self._renamed and isinstance(x, dict) and set(x) == set(self._given)

    def check(self, x: Any) -> None:
        if self.is_in(x):
            return
        received = sorted(_entries(x), key=str) or type(x).__name__
        raise problem(
            f"inputs {received} with {self._argument}={self._given!r}",
            "a dict, list or tuple of inputs that has these entries",
            "name the entries of the data, or give a function of the inputs",
        )

    def part(self, x: Any) -> Any:
        if callable(self._given):
            return self._given(x)
        if self._renamed:
            return self.fitted({name: x[entry] for name, entry in self._given.items()})
        if self.entries:
            return self.fitted({entry: x[entry] for entry in self.entries}, x)
        if isinstance(x, dict) and self._takes is not None and len(x) > _number(self._takes):
            return self.fitted(dict(x), x)
        return x

    def fitted(self, chosen: dict[Entry, Any], x: Any = None) -> Any:
        """Chosen entries in the structure that the model takes; a single one without a structure.

        Args:
            chosen: the entries.
            x: the batch, in which others are looked up where the model takes another number.
        """
        names = _names(self._takes)
        if x is not None and names and len(chosen) != len(names) and set(names) <= set(_entries(x)):
            chosen = {name: x[name] for name in names}
        if isinstance(self._takes, dict) and set(names) == set(chosen):
            return chosen
        if isinstance(self._takes, list | tuple) and set(names) == set(chosen):
            return [chosen[name] for name in names]
        if len(chosen) == 1 and not (self._renamed and self._takes is None):
            return next(iter(chosen.values()))
        if all(isinstance(entry, int) for entry in chosen):
            return list(chosen.values())
        return chosen


def _entries(x: Any) -> list[Entry]:
    """The keys of a dict, the indexes of a list or tuple; none of a tensor or a shape."""
    if isinstance(x, dict):
        return list(x)
    if isinstance(x, list | tuple) and not all(isinstance(size, int | None) for size in x):
        return list(range(len(x)))
    return []


def _names(takes: Any) -> list[str]:
    if takes is None:
        return []
    # A dict is taken by its keys, whatever its tensors are called.
    return [takes] if isinstance(takes, str) else list(takes)


def _number(takes: Any) -> int:
    return len(_names(takes))
