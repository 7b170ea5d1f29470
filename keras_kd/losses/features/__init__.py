"""Losses on hidden features."""

from keras_kd.losses.features.attention import AttentionTransfer
from keras_kd.losses.features.attention_scores import AttentionScores
from keras_kd.losses.features.boundary import ActivationBoundary
from keras_kd.losses.features.channel_wise import ChannelWiseDistillation
from keras_kd.losses.features.channels import InterChannelCorrelation
from keras_kd.losses.features.context import HierarchicalContext
from keras_kd.losses.features.factor import FactorTransfer
from keras_kd.losses.features.flow import FlowOfSolution
from keras_kd.losses.features.hint import Hint
from keras_kd.losses.features.partial_l2 import PartialL2
from keras_kd.losses.features.recipe import SimpleRecipe
from keras_kd.losses.features.selectivity import NeuronSelectivityTransfer
from keras_kd.losses.features.variational import VariationalInformation

__all__ = [
    "ActivationBoundary",
    "AttentionScores",
    "AttentionTransfer",
    "ChannelWiseDistillation",
    "FactorTransfer",
    "FlowOfSolution",
    "HierarchicalContext",
    "Hint",
    "InterChannelCorrelation",
    "NeuronSelectivityTransfer",
    "PartialL2",
    "SimpleRecipe",
    "VariationalInformation",
]
