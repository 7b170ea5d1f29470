"""Distillation losses: tensors in, one value per example or batch out, without a model."""

from keras_kd._lazy import publish
from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.features import (
    ActivationBoundary,
    AttentionScores,
    AttentionTransfer,
    ChannelWiseDistillation,
    FactorTransfer,
    FlowOfSolution,
    HierarchicalContext,
    Hint,
    InterChannelCorrelation,
    NeuronSelectivityTransfer,
    PartialL2,
    SimpleRecipe,
    VariationalInformation,
)
from keras_kd.losses.features.base import FeatureLoss
from keras_kd.losses.logits import (
    DIST,
    DecoupledKD,
    DirectionMatching,
    HardTargets,
    LogitsMSE,
    OutputDifference,
    SoftCrossEntropy,
    SoftTargets,
    StandardizedSoftTargets,
)
from keras_kd.losses.named import get
from keras_kd.losses.relations import (
    ContrastiveRepresentation,
    CorrelationCongruence,
    ProbabilisticTransfer,
    Relational,
    SimilarityPreserving,
)
from keras_kd.losses.relations.base import BatchLoss

__all__ = [
    "DIST",
    "ActivationBoundary",
    "AttentionScores",
    "AttentionTransfer",
    "BatchLoss",
    "ChannelWiseDistillation",
    "ContrastiveRepresentation",
    "CorrelationCongruence",
    "DecoupledKD",
    "DirectionMatching",
    "DistillationLoss",
    "FactorTransfer",
    "FeatureLoss",
    "FlowOfSolution",
    "HardTargets",
    "HierarchicalContext",
    "Hint",
    "InterChannelCorrelation",
    "LogitsMSE",
    "NeuronSelectivityTransfer",
    "OutputDifference",
    "PartialL2",
    "ProbabilisticTransfer",
    "Relational",
    "SimilarityPreserving",
    "SimpleRecipe",
    "SoftCrossEntropy",
    "SoftTargets",
    "StandardizedSoftTargets",
    "VariationalInformation",
    "get",
]

publish(__name__, __all__)
