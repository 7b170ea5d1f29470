"""Distillation losses: tensors in, one value per example out; they know no model."""

from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.logits import LogitsMSE, SoftCrossEntropy, SoftTargets

__all__ = ["DistillationLoss", "LogitsMSE", "SoftCrossEntropy", "SoftTargets"]
