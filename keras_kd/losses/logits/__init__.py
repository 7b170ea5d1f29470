"""Losses on the models' outputs."""

from keras_kd.losses.logits.mean_squared_error import LogitsMSE
from keras_kd.losses.logits.soft_targets import SoftCrossEntropy, SoftTargets

__all__ = ["LogitsMSE", "SoftCrossEntropy", "SoftTargets"]
