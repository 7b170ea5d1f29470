"""Batches that contain the teacher's outputs."""

from __future__ import annotations

from typing import Any

from keras_kd._checks import problem
from keras_kd.teachers.inputs import Inputs

STUDENT_INPUTS = "student_inputs"
TEACHER_OUTPUTS = "teacher_outputs"


def joined(student_inputs: Any, teacher_outputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a batch with the teacher's outputs beside them, a structure of tensors."""
    return {STUDENT_INPUTS: student_inputs, TEACHER_OUTPUTS: teacher_outputs}


def is_joined(x: Any) -> bool:
    """Whether the inputs of a batch come from `joined`."""
    return isinstance(x, dict) and set(x) == {STUDENT_INPUTS, TEACHER_OUTPUTS}


def without_teacher(x: Any) -> Any:
    """The inputs of a batch without the teacher's outputs, if it contains them."""
    return x[STUDENT_INPUTS] if is_joined(x) else x


class JoinedInputs:
    """Divides a joined batch between the student and a teacher that is there in its outputs only.

    Args:
        given: how the user divides what the data hold besides.
        key_name: the entry of dict inputs by which examples are known, which data that are not
            joined still have; the student does not see it.
    """

    are_shared = False

    def __init__(self, given: Inputs, key_name: str | None = None) -> None:
        self._given = given
        self._key_name = key_name

    def check(self, x: Any) -> None:
        """Any batch will do for the student."""

    def reach_teacher(self, x: Any) -> bool:
        """Whether a batch contains the teacher's outputs."""
        return is_joined(x)

    def of_teacher(self, x: Any) -> Any:
        """The teacher's outputs for a batch.

        Raises:
            ValueError: if the batch does not bring it.
        """
        if is_joined(x):
            return x[TEACHER_OUTPUTS]
        raise problem(
            "data without the teacher's stored outputs, for a StoredTeacher",
            "each example with the outputs that belong to it",
            "train on them joined: distiller.fit(stored_teacher.join((x, y)), epochs=10)",
        )

    def of_student(self, x: Any) -> Any:
        """The student's part of a batch."""
        if is_joined(x):
            return self._given.of_student(x[STUDENT_INPUTS])
        if isinstance(x, dict) and self._key_name in x:
            # The key is to the student what the teacher's part is.
            x = Inputs(self._key_name).of_student(x)
        return self._given.of_student(x)
