"""Callbacks for `fit`: the best student, resumption after a kill, more values in the logs."""

from keras_kd._lazy import publish
from keras_kd.callbacks.resume_training import ResumeTraining
from keras_kd.callbacks.student_checkpoint import StudentCheckpoint
from keras_kd.distiller.logs import DistillationLogs

__all__ = ["DistillationLogs", "ResumeTraining", "StudentCheckpoint"]

publish(__name__, __all__)
# `fit` of a Distiller uses it; users find it here.
DistillationLogs.__module__ = __name__
