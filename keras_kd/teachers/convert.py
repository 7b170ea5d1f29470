"""What a user may give as a teacher."""

from __future__ import annotations

from typing import Any

from keras_kd import _keras
from keras_kd._checks import problem
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
    if _keras.is_model(teacher):
        return ModelTeacher(teacher)
    # A class can be called as well, but is a teacher that was not made yet.
    if callable(teacher) and not isinstance(teacher, type):
        return Function(teacher)
    kind = type(teacher)
    raise ValueError(
        problem(
            f"teacher={_keras.short(teacher)} of type {kind.__module__}.{kind.__qualname__}",
            "a keras.Model or a tf_keras.Model, a list of them, an object of keras_kd.teachers, or "
            "a function of the inputs",
            "make an object of the class, as in keras_kd.teachers.MovingAverage(), and pass it as "
            "`teacher`"
            if isinstance(teacher, type)
            else "load or build the model first and pass it as `teacher`; a model of scikit-learn "
            "teaches through keras_kd.teachers.NumpyFunction, a store through StoredTeacher(path)",
        )
    )
