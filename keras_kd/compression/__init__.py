"""What changes the form of a student's weights: pruning, quantization-aware training, and back."""

from keras_kd.compression.bridge import to_tf_keras
from keras_kd.compression.pruning import prune
from keras_kd.compression.quantization import quantize_aware
from keras_kd.compression.sparsity import Sparsity, sparsity
from keras_kd.compression.stripping import strip

__all__ = ["Sparsity", "prune", "quantize_aware", "sparsity", "strip", "to_tf_keras"]
