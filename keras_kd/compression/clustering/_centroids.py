"""Where the values that weights share begin. Importing this imports TF-MOT."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_kd.compression._tfmot import clustering_centroids

_factory = clustering_centroids.CentroidsInitializerFactory


def initial_centroids(
    weights: np.ndarray, count: int, initialization: Any, keep_zeros: bool
) -> np.ndarray:
    """Choose the values that the weights of one kernel, or of one channel, will share.

    TF-MOT's own initializations, on weights that are scaled to a largest magnitude of 1, because
    it reads densities from a grid that does not fit small weights. Where there are not more
    different weights than values, the values are these weights.

    Args:
        weights: of any shape.
        count: how many values; with `keep_zeros` one of them is zero.
        initialization: out of TF-MOT's `CentroidInitialization`.
        keep_zeros: whether weights that are zero stay zero.

    Returns:
        The values without that zero, shape (values,).
    """
    weights = np.ravel(weights).astype(np.float32)
    distinct = np.unique(weights[weights != 0] if keep_zeros else weights)
    free = count - keep_zeros
    if len(distinct) <= free:
        return np.pad(distinct, (0, free - len(distinct)), "edge" if len(distinct) else "constant")
    scale = np.abs(distinct).max()
    initializer = _factory.get_centroid_initializer(initialization)(
        weights / scale, count, preserve_sparsity=keep_zeros
    )
    found = initializer.get_cluster_centroids().numpy()
    return scale * (np.delete(found, np.argmin(np.abs(found))) if keep_zeros else found)
