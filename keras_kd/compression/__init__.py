"""What changes the form of a student's weights, and what brings it back to a plain model."""

from keras_kd.compression.bridge.rebuilding import to_tf_keras
from keras_kd.compression.clustering.sharing import cluster
from keras_kd.compression.factorization.report import Factorization, FactorizedLayer
from keras_kd.compression.factorization.truncation import factorize
from keras_kd.compression.pruning.filters import remove_filters
from keras_kd.compression.pruning.magnitude import prune
from keras_kd.compression.pruning.sparsity import Sparsity, sparsity
from keras_kd.compression.quantization.training import quantize_aware
from keras_kd.compression.stripping import strip

__all__ = [
    "Factorization",
    "FactorizedLayer",
    "Sparsity",
    "cluster",
    "factorize",
    "prune",
    "quantize_aware",
    "remove_filters",
    "sparsity",
    "strip",
    "to_tf_keras",
]
