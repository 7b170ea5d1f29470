"""Losses on the models' outputs."""

from keras_kd.losses.logits.decoupled import DecoupledKD
from keras_kd.losses.logits.difference import LogitsMSE, OutputDifference
from keras_kd.losses.logits.direction import DirectionMatching
from keras_kd.losses.logits.dist import DIST
from keras_kd.losses.logits.hard_targets import HardTargets
from keras_kd.losses.logits.soft_targets import SoftCrossEntropy, SoftTargets
from keras_kd.losses.logits.standardized import StandardizedSoftTargets

__all__ = [
    "DIST",
    "DecoupledKD",
    "DirectionMatching",
    "HardTargets",
    "LogitsMSE",
    "OutputDifference",
    "SoftCrossEntropy",
    "SoftTargets",
    "StandardizedSoftTargets",
]
