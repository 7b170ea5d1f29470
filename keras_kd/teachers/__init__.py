"""Teachers: models, ensembles, functions, the student itself, or stored outputs."""

from keras_kd._lazy import publish
from keras_kd.teachers.base import ModelTeacher, Teacher
from keras_kd.teachers.born_again import Generation, born_again
from keras_kd.teachers.ensemble import Ensemble, as_teacher
from keras_kd.teachers.function import Function, NumpyFunction
from keras_kd.teachers.last_exit import LastExit
from keras_kd.teachers.moving_average import MovingAverage
from keras_kd.teachers.stored.teacher import StoredTeacher

__all__ = [
    "Ensemble",
    "Function",
    "Generation",
    "LastExit",
    "ModelTeacher",
    "MovingAverage",
    "NumpyFunction",
    "StoredTeacher",
    "Teacher",
    "as_teacher",
    "born_again",
]

publish(__name__, __all__)
