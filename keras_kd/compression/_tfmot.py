"""TensorFlow Model Optimization, imported without what its import does to the rest of the process.

TF-MOT sets an environment variable that turns `tf.keras` into Keras 2, here and in every process
that is started from here. It needs neither: with `tf.keras` being Keras 3 it takes `tf_keras`.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import tensorflow as tf

_VARIABLE = "TF_USE_LEGACY_KERAS"


def _import_tfmot() -> ModuleType:
    # What `tf.keras` means is decided when it is first used; from then on it stays.
    tf.keras.Model  # noqa: B018
    before = os.environ.get(_VARIABLE)
    try:
        import tensorflow_model_optimization
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
    return tensorflow_model_optimization


tfmot = _import_tfmot()


def _core(name: str) -> Any:
    """A module of TF-MOT without a public name; it must be imported after `_import_tfmot`."""
    return importlib.import_module(f"tensorflow_model_optimization.python.core.{name}")


cluster_config = _core("clustering.keras.cluster_config")
cluster_wrapper = _core("clustering.keras.cluster_wrapper")
clustering_centroids = _core("clustering.keras.clustering_centroids")
tfmot_utils = _core("keras.utils")
quantize_aware_activation = _core("quantization.keras.quantize_aware_activation")
quantize_layer = _core("quantization.keras.quantize_layer")
pruning_wrapper = _core("sparsity.keras.pruning_wrapper")

__all__ = [
    "cluster_config",
    "cluster_wrapper",
    "clustering_centroids",
    "pruning_wrapper",
    "quantize_aware_activation",
    "quantize_layer",
    "tfmot",
    "tfmot_utils",
]
