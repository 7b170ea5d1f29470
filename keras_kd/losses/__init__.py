"""Distillation losses: tensors in, one value per example or batch out; they know no model."""

from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.features import Hint
from keras_kd.losses.features.base import FeatureLoss
from keras_kd.losses.logits import (
    DIST,
    DecoupledKD,
    DirectionMatching,
    LogitsMSE,
    OutputDifference,
    SoftCrossEntropy,
    SoftTargets,
    StandardizedSoftTargets,
)
from keras_kd.losses.relations.base import BatchLoss

__all__ = [
    "DIST",
    "BatchLoss",
    "DecoupledKD",
    "DirectionMatching",
    "DistillationLoss",
    "FeatureLoss",
    "Hint",
    "LogitsMSE",
    "OutputDifference",
    "SoftCrossEntropy",
    "SoftTargets",
    "StandardizedSoftTargets",
]
