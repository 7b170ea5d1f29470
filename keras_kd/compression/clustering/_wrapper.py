"""TF-MOT's clustering wrapper, completed. Importing this imports TF-MOT, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from keras_kd._keras import at_least_float32
from keras_kd.compression._tfmot import cluster_config, cluster_wrapper, clustering_centroids
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.bridge.weights import named_weights
from keras_kd.compression.kernels import CLUSTERABLE, Kernel, kernels

_Aggregation = cluster_config.GradientAggregation
_Initialization = cluster_config.CentroidInitialization
AGGREGATIONS = {"sum": _Aggregation.SUM, "mean": _Aggregation.AVG}
INITIALIZATIONS = {
    "kmeans++": _Initialization.KMEANS_PLUS_PLUS,
    "linear": _Initialization.LINEAR,
    "density": _Initialization.DENSITY_BASED,
    "random": _Initialization.RANDOM,
}


@dataclass(frozen=True, eq=False)
class _ClusteredKernel:
    """A clustered weight: where the layer has it, and the variables that were added for it.

    `slot` is the attribute of `owner` that holds it. `axis` is that of the channels if each has
    values of its own. `kept` is False where a weight stays zero.
    """

    owner: Any
    slot: str
    original: tf.Variable
    axis: int | None
    centroids: tf.Variable
    kept: tf.Variable | None

    def clustered(self, average_gradients: bool) -> tf.Tensor:
        """What the layer computes with, in the shape and type of the original."""
        rows = nearest(self.in_rows(self.original), self.centroids, average_gradients)
        values = self._from_rows(rows)
        return values if self.kept is None else tf.where(self.kept, values, 0)

    def in_rows(self, weights: tf.Tensor) -> tf.Tensor:
        """Weights that share values in a row: shape (groups, weights)."""
        if self.axis is None:
            return tf.reshape(weights, (1, -1))
        channels = weights.shape[self.axis]
        return tf.reshape(tf.experimental.numpy.moveaxis(weights, self.axis, 0), (channels, -1))

    def _from_rows(self, rows: tf.Tensor) -> tf.Tensor:
        shape = list(self.original.shape)
        if self.axis is None:
            return tf.reshape(rows, shape)
        channels = shape.pop(self.axis)
        values = tf.reshape(rows, (channels, *shape))
        return tf.experimental.numpy.moveaxis(values, 0, self.axis)


@tf_keras.saving.register_keras_serializable("keras_kd")
class ClusterWeights(cluster_wrapper.ClusterWeights):
    """TF-MOT's wrapper, whose clustered weights are a function of its variables and nothing else.

    TF-MOT's own puts tensors of the graph that was traced last in the place of the layer's
    variables, and writes indices and zeros in every forward pass. Here the tensors are in place
    while the layer is called, and nothing is written. TF-MOT's also loses masks, the training
    flag, half precision and, when it is loaded from a file, which weights stay zero.
    """

    def __init__(
        self,
        layer: Any,
        number_of_clusters: int,
        cluster_centroids_init: Any,
        preserve_sparsity: bool = False,
        cluster_per_channel: bool = False,
        cluster_gradient_aggregation: Any = _Aggregation.SUM,
        **options: Any,
    ) -> None:
        # Values are looked up in full precision, and the layer casts its inputs for itself.
        defaults = {"name": f"cluster_{layer.name}", "dtype": layer.variable_dtype}
        # TF-MOT's constructor raises an error for layers that are not in its registry.
        super(cluster_wrapper.ClusterWeights, self).__init__(
            layer, **{**defaults, "autocast": False, **options}
        )
        # Under this name TF-MOT saves it.
        self.number_of_clusters = number_of_clusters
        self.cluster_centroids_init = cluster_centroids_init
        self.preserve_sparsity = preserve_sparsity
        self.cluster_per_channel = cluster_per_channel
        self.cluster_gradient_aggregation = cluster_gradient_aggregation
        self.supports_masking = layer.supports_masking
        # So that Keras passes masks and the training flag as it does to the layer itself.
        self._call_spec = layer._call_spec
        # The layer leaves its mask on its outputs.
        self._compute_output_and_mask_jointly = True

    def build(self, input_shape: Any) -> None:
        """Build the layer, and add the shared values and the positions of the zeros."""
        tf_keras.layers.Wrapper.build(self, input_shape)
        if self.layer.weights:
            self._add_kernels()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing: a layer of Keras 3 is built in its first call, where all arguments are known."""

    def _add_kernels(self) -> None:
        # Past Keras' own __setattr__, for which the layer's weights would be the wrapper's too.
        self.__dict__["_kernels"] = [
            self._add_kernel(number, kernel)
            for number, kernel in enumerate(kernels(self.layer, CLUSTERABLE))
        ]

    def _add_kernel(self, number: int, kernel: Kernel) -> _ClusteredKernel:
        owner, attribute, original = kernel.part, kernel.attribute, kernel.variable
        # In Keras 3 some kernels are properties.
        slot = attribute if attribute in vars(owner) else f"_{attribute}"
        axis = kernel.channel_axis if self.cluster_per_channel else None
        groups = 1 if axis is None else original.shape[axis]
        # Zero is one of the values, and needs no variable.
        free = self.number_of_clusters - self.preserve_sparsity
        centroids = self.add_weight(
            f"cluster_centroids_{attribute}_{number}", (groups, free), initializer="zeros"
        )
        kept = None
        if self.preserve_sparsity:
            kept = self.add_weight(
                f"kept_{attribute}_{number}",
                original.shape,
                dtype=tf.bool,
                trainable=False,
                initializer=lambda shape, dtype: tf.ones(shape, dtype),
            )
        return _ClusteredKernel(owner, slot, original, axis, centroids, kept)

    def initialize(self) -> None:
        """Choose the values anew for the weights that the layer has now."""
        for kernel in self._kernels:
            if kernel.kept is not None:
                kernel.kept.assign(kernel.original.numpy() != 0)
            kernel.centroids.assign(
                [
                    initial_centroids(
                        row,
                        self.number_of_clusters,
                        self.cluster_centroids_init,
                        self.preserve_sparsity,
                    )
                    for row in kernel.in_rows(kernel.original).numpy()
                ]
            )

    def call(self, *args: Any, **options: Any) -> Any:
        """The layer's outputs with its clustered weights."""
        if "_kernels" not in vars(self):
            # A layer of Keras 3 has its weights once it was called.
            self.layer(*args, **options)
            with tf.init_scope():
                self._add_kernels()
        with self._clustered_weights():
            return self.layer(*args, **options)

    @contextmanager
    def _clustered_weights(self) -> Iterator[None]:
        average = self.cluster_gradient_aggregation == _Aggregation.AVG
        before = [vars(kernel.owner)[kernel.slot] for kernel in self._kernels]
        try:
            for kernel in self._kernels:
                values = tf.cast(kernel.clustered(average), kernel.owner.compute_dtype)
                vars(kernel.owner)[kernel.slot] = values
            yield
        finally:
            for kernel, weight in zip(self._kernels, before, strict=True):
                vars(kernel.owner)[kernel.slot] = weight

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask that the wrapped layer computes."""
        return self.layer.compute_mask(inputs, mask)

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """The layer's, and the shared values; none if the layer is frozen."""
        return super().trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """The layer's, and the positions of its zeros."""
        frozen = [] if self.trainable else self._trainable_weights
        return super().non_trainable_weights + frozen

    # TF-MOT's are those of the layer alone, without the values that its weights share.
    get_weights = tf_keras.layers.Wrapper.get_weights
    set_weights = tf_keras.layers.Wrapper.set_weights

    def clustered(self) -> list[tuple[tf.Variable, np.ndarray]]:
        """Each weight that is clustered, and the value that the layer computes with."""
        return [(kernel.original, kernel.clustered(False).numpy()) for kernel in self._kernels]


def dismantle(layer: Any) -> Sequence[LayerRecord] | None:
    """The layer inside a clustering wrapper, with clustered weights; None for any other layer."""
    if not isinstance(layer, ClusterWeights):
        return None
    record = record_of(layer.layer)
    clustered = {id(weight): value for weight, value in layer.clustered()}
    shared = {
        name: clustered[id(_variable(weight))]
        for name, weight in named_weights(layer.layer).items()
        if id(_variable(weight)) in clustered
    }
    return [replace(record, weights={**record.weights, **shared})]


def _variable(weight: Any) -> tf.Variable:
    """TensorFlow's own variable, which Keras 3 wraps."""
    return weight.value if isinstance(weight, keras.Variable) else weight


def initial_centroids(
    weights: np.ndarray, count: int, initialization: Any, preserve_sparsity: bool
) -> np.ndarray:
    """Choose the values that the weights of one kernel, or of one channel, will share.

    TF-MOT's own initializations, on weights that are scaled to a largest magnitude of 1, because
    it reads densities from a grid that does not fit small weights. Where there are not more
    different weights than values, the values are these weights.

    Args:
        weights: of any shape.
        count: how many values; with `preserve_sparsity` one of them is zero.
        initialization: out of TF-MOT's `CentroidInitialization`.
        preserve_sparsity: whether weights that are zero stay zero.

    Returns:
        The values without that zero, shape (values,).
    """
    weights = np.ravel(weights).astype(np.float32)
    distinct = np.unique(weights[weights != 0] if preserve_sparsity else weights)
    free = count - preserve_sparsity
    if len(distinct) <= free:
        return np.pad(distinct, (0, free - len(distinct)), "edge" if len(distinct) else "constant")
    scale = np.abs(distinct).max()
    initializer = clustering_centroids.CentroidsInitializerFactory.get_centroid_initializer(
        initialization
    )(weights / scale, count, preserve_sparsity=preserve_sparsity)
    found = initializer.get_cluster_centroids().numpy()
    return scale * (np.delete(found, np.argmin(np.abs(found))) if preserve_sparsity else found)


def nearest(weights: tf.Tensor, centroids: tf.Tensor, average_gradients: bool) -> tf.Tensor:
    """Put the nearest of its group's values in place of each weight (Cho et al., 2022).

    The gradient of a value is the sum, or the average, of those of the weights assigned to it. The
    weights receive their gradients as if nothing had been put in their place.

    Args:
        weights: shape (groups, weights).
        centroids: the values, shape (groups, values), in any order.
        average_gradients: whether to average.

    Returns:
        Shape (groups, weights).
    """
    # By bisection: a table of the distances of all weights to all values does not fit in memory
    # for large kernels.
    order = tf.argsort(centroids, axis=-1)
    ascending = at_least_float32(tf.gather(centroids, order, batch_dims=1))
    middles = (ascending[:, 1:] + ascending[:, :-1]) / 2
    ranks = tf.searchsorted(tf.stop_gradient(middles), at_least_float32(weights))
    indices = tf.gather(order, ranks, batch_dims=1)
    if average_gradients:
        centroids = _averaging(centroids, indices)
    return _in_place_of(weights, tf.gather(centroids, indices, batch_dims=1))


@tf.custom_gradient
def _in_place_of(weights: tf.Tensor, values: tf.Tensor) -> Any:
    return tf.identity(values), lambda upstream: (upstream, upstream)


@tf.custom_gradient
def _averaging(centroids: tf.Tensor, indices: tf.Tensor) -> Any:
    shape: Any = centroids.shape
    groups, count = shape
    flat = tf.reshape(indices + count * tf.range(groups)[:, None], [-1])
    takers = tf.math.unsorted_segment_sum(tf.ones_like(flat), flat, groups * count)
    takers = tf.cast(tf.reshape(takers, (groups, count)), centroids.dtype)
    return tf.identity(centroids), lambda upstream: (
        tf.math.divide_no_nan(upstream, takers),
        None,
    )
