"""What changes the form of a student's weights, and what brings it back to a plain model."""

from keras_kd.compression.bridge.rebuilding import to_tf_keras
from keras_kd.compression.clustering.clusters import Clusters, clusters
from keras_kd.compression.clustering.sharing import cluster
from keras_kd.compression.factorization.report import Factorization, FactorizedLayer
from keras_kd.compression.factorization.truncation import factorize
from keras_kd.compression.loading import load
from keras_kd.compression.pruning.dead_filters import remove_dead_filters
from keras_kd.compression.pruning.filters import remove_filters
from keras_kd.compression.pruning.latency import layers_for_xnnpack
from keras_kd.compression.pruning.magnitude import prune
from keras_kd.compression.pruning.patterns import Blocks, MByN
from keras_kd.compression.pruning.schedule import ConstantSchedule, PolynomialSchedule
from keras_kd.compression.pruning.shrinkage import Shrinkage, shrinkage
from keras_kd.compression.pruning.sparsity import Sparsity, sparsity
from keras_kd.compression.quantization.summary import (
    LayerQuantization,
    Quantization,
    quantization_summary,
)
from keras_kd.compression.quantization.training import quantize_aware
from keras_kd.compression.steps.pipeline import pipeline
from keras_kd.compression.steps.result import PipelineResult, Stage
from keras_kd.compression.steps.step import Step
from keras_kd.compression.stripping import strip

__all__ = [
    "Blocks",
    "Clusters",
    "ConstantSchedule",
    "Factorization",
    "FactorizedLayer",
    "LayerQuantization",
    "MByN",
    "PipelineResult",
    "PolynomialSchedule",
    "Quantization",
    "Shrinkage",
    "Sparsity",
    "Stage",
    "Step",
    "cluster",
    "clusters",
    "factorize",
    "layers_for_xnnpack",
    "load",
    "pipeline",
    "prune",
    "quantization_summary",
    "quantize_aware",
    "remove_dead_filters",
    "remove_filters",
    "shrinkage",
    "sparsity",
    "strip",
    "to_tf_keras",
]
