"""Callbacks for `fit`: the best student, and trainings that go on after a kill."""

from keras_kd._lazy import publish
from keras_kd.callbacks.resume_training import ResumeTraining
from keras_kd.callbacks.student_checkpoint import StudentCheckpoint

__all__ = ["ResumeTraining", "StudentCheckpoint"]

publish(__name__, __all__)
