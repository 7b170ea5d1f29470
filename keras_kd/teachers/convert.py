"""What a user may give as a teacher."""

from __future__ import annotations

from typing import Any

from keras_kd import _keras
from keras_kd.teachers.base import ModelTeacher, Teacher
from keras_kd.teachers.ensemble import Ensemble
from keras_kd.teachers.function import Function


def as_teacher(teacher: Any) -> Teacher:
    """A teacher of anything that can be one.

    Args:
        teacher: a model of either Keras, a list of them for an `Ensemble`, an object of
            `keras_kd.teachers`, or a function of the inputs.

    Raises:
        ValueError: if it is anything else.
    """
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, list | tuple):
        return Ensemble(teacher)
    if _keras.is_model(teacher) or not callable(teacher) or isinstance(teacher, type):
        # A class can be called as well, but is a model that was not built yet.
        return ModelTeacher(teacher)
    return Function(teacher)
