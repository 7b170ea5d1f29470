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

from keras_kd.compression._tfmot import cluster_config, cluster_wrapper
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.bridge.weights import named_weights
from keras_kd.compression.clustering._centroids import initial_centroids
from keras_kd.compression.clustering._lookup import nearest
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
class _Kernel:
    """A clustered weight: where the layer has it, and the variables that were added for it.

    `slot` is the attribute of `owner` that holds it. `axis` is that of the channels if each has
    values of its own. `kept` is False where a weight is to stay zero.
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
    flag, half precision and, when it is loaded from a file, which weights are to stay zero.
    """

    def __init__(
        self,
        layer: Any,
        num_clusters: int,
        cluster_centroids_init: Any,
        preserve_sparsity: bool = False,
        cluster_per_channel: bool = False,
        cluster_gradient_aggregation: Any = _Aggregation.SUM,
        **options: Any,
    ) -> None:
        # Values are looked up in full precision, and the layer casts its inputs for itself.
        defaults = {"name": f"cluster_{layer.name}", "dtype": layer.variable_dtype}
        # TF-MOT's constructor refuses layers that its registry does not know.
        super(cluster_wrapper.ClusterWeights, self).__init__(
            layer, **{**defaults, "autocast": False, **options}
        )
        self.num_clusters = num_clusters
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
        """Build the layer, and add what its weights share and where they are to stay zero."""
        tf_keras.layers.Wrapper.build(self, input_shape)
        if self.layer.weights:
            self._add_kernels()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Nothing: a layer of Keras 3 is built in its first call, which knows all arguments."""

    def _add_kernels(self) -> None:
        # Past Keras' own __setattr__, for which the layer's weights would be the wrapper's too.
        vars(self)["_kernels"] = [
            self._add_kernel(number, kernel)
            for number, kernel in enumerate(kernels(self.layer, CLUSTERABLE))
        ]

    def _add_kernel(self, number: int, kernel: Kernel) -> _Kernel:
        owner, attribute, original = kernel.part, kernel.attribute, kernel.variable
        # In Keras 3 some kernels are properties.
        slot = attribute if attribute in vars(owner) else f"_{attribute}"
        axis = kernel.channel_axis if self.cluster_per_channel else None
        groups = 1 if axis is None else original.shape[axis]
        # Zero is one of the values, and needs no variable.
        free = self.num_clusters - self.preserve_sparsity
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
        return _Kernel(owner, slot, original, axis, centroids, kept)

    def initialize(self) -> None:
        """Choose the values anew for the weights that the layer has now."""
        for kernel in self._kernels:
            if kernel.kept is not None:
                kernel.kept.assign(kernel.original.numpy() != 0)
            kernel.centroids.assign(
                [
                    initial_centroids(
                        row,
                        self.num_clusters,
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
        """The layer's, and where its weights are to stay zero."""
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
