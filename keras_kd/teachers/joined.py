"""Batches that bring what the teacher says of them."""

from __future__ import annotations

from typing import Any

STUDENT_INPUTS = "student_inputs"
TEACHER_OUTPUTS = "teacher_outputs"


def joined(student_inputs: Any, teacher_outputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a batch with the teacher's outputs beside them, a structure of tensors."""
    return {STUDENT_INPUTS: student_inputs, TEACHER_OUTPUTS: teacher_outputs}


def is_joined(x: Any) -> bool:
    """Whether the inputs of a batch come from `joined`."""
    return isinstance(x, dict) and set(x) == {STUDENT_INPUTS, TEACHER_OUTPUTS}
