"""Losses on relations between the examples of a batch."""

from keras_kd.losses.relations.congruence import CorrelationCongruence
from keras_kd.losses.relations.contrastive import ContrastiveRepresentation
from keras_kd.losses.relations.probabilistic import ProbabilisticTransfer
from keras_kd.losses.relations.relational import Relational
from keras_kd.losses.relations.similarity import SimilarityPreserving

__all__ = [
    "ContrastiveRepresentation",
    "CorrelationCongruence",
    "ProbabilisticTransfer",
    "Relational",
    "SimilarityPreserving",
]
