"""TensorFlow Model Optimization, imported without what its import does to the rest of the process.

TF-MOT sets an environment variable that turns `tf.keras` into Keras 2, here and in every process
that is started from here. It needs neither: with `tf.keras` being Keras 3 it takes `tf_keras`.
"""

from __future__ import annotations

import os
from types import ModuleType

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

# What has no public name; imported here because it must come after the line above.
from tensorflow_model_optimization.python.core.clustering.keras import (  # noqa: E402
    cluster_config,
    cluster_wrapper,
    clustering_centroids,
)
from tensorflow_model_optimization.python.core.keras import (  # noqa: E402
    utils as tfmot_utils,
)
from tensorflow_model_optimization.python.core.quantization.keras import (  # noqa: E402
    quantize_aware_activation,
    quantize_layer,
)
from tensorflow_model_optimization.python.core.sparsity.keras import (  # noqa: E402
    pruning_wrapper,
)

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
