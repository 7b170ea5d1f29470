"""Compression: changes of a student's weights or layers, and the way back to a plain model."""

from keras_kd import _backends

# Before the modules that import TensorFlow.
_backends.check_tensorflow(__name__)

# ruff: noqa: E402
from keras_kd._lazy import publish
from keras_kd.compression.bridge.rebuilding import to_tf_keras
from keras_kd.compression.clustering.sharing import cluster
from keras_kd.compression.factorization.candidate import FactorizedLayer
from keras_kd.compression.factorization.truncation import factorize
from keras_kd.compression.loading import load
from keras_kd.compression.pruning.dead_filters import remove_dead_filters
from keras_kd.compression.pruning.filters import remove_filters
from keras_kd.compression.pruning.latency import layers_for_xnnpack
from keras_kd.compression.pruning.magnitude import prune
from keras_kd.compression.pruning.patterns import Blocks, MByN
from keras_kd.compression.pruning.schedule import ConstantSchedule, PolynomialSchedule
from keras_kd.compression.quantization.summary import LayerQuantization
from keras_kd.compression.quantization.training import quantize_aware
from keras_kd.compression.report import KernelSummary, LayerSummary, Summary, summary
from keras_kd.compression.steps.pipeline import pipeline
from keras_kd.compression.steps.result import PipelineResult, Stage
from keras_kd.compression.steps.step import Step
from keras_kd.compression.stripping import strip

__all__ = [
    "Blocks",
    "ConstantSchedule",
    "FactorizedLayer",
    "KernelSummary",
    "LayerQuantization",
    "LayerSummary",
    "MByN",
    "PipelineResult",
    "PolynomialSchedule",
    "Stage",
    "Step",
    "Summary",
    "cluster",
    "factorize",
    "layers_for_xnnpack",
    "load",
    "pipeline",
    "prune",
    "quantize_aware",
    "remove_dead_filters",
    "remove_filters",
    "strip",
    "summary",
    "to_tf_keras",
]

publish(__name__, __all__)
