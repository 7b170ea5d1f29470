"""Clustering: the weights of a layer share few values, which train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, check_flag, check_integer, problem
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.rebuilding import rebuild, to_tf_keras
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.families import check_state
from keras_kd.compression.kernels import CLUSTERABLE, is_depthwise, kernels
from keras_kd.compression.selection import Selection, select
from keras_kd.compression.stripping import dismantle

_INITIALIZATIONS = ("kmeans++", "linear", "density", "random")
_AGGREGATIONS = ("sum", "mean")


def cluster(
    student: Any,
    num_clusters: int = 16,
    *,
    initialization: str = "kmeans++",
    per_channel: bool = False,
    preserve_sparsity: bool | str = "auto",
    gradient_aggregation: str = "sum",
    layers: Selection = None,
    skip: Selection = None,
) -> Any:
    """Make a student whose weights share few values, which train (Han et al., 2016).

    Each kernel of a Dense, EinsumDense, convolution, recurrent or attention layer, each pointwise
    kernel of a separable convolution and each embedding gets `num_clusters` values; each of
    its weights is the nearest one. That holds inside a custom layer too; if its class has a method
    `get_clusterable_weights`, it holds for what that lists instead. Training moves the values and,
    as if they were not clustered, the weights behind them, so that a weight can change to another
    value. Biases, normalizations and frozen layers are not clustered, nor are depthwise kernels
    unless `layers` chooses their layer and it has no others.

    Clustering makes a compressed file smaller (see `summary`). It does not make the file itself
    smaller nor the model faster. Begin with a trained student.

    Args:
        student: a Sequential or Functional model of either Keras, plain or pruned; it is not
            changed.
        num_clusters: how many values each kernel may have, 2 or more.
        initialization: where the values begin: "kmeans++" (weights, drawn far from one another),
            "linear" (evenly between the smallest and the largest weight), "density" (evenly among
            the weights) or "random" (uniformly between the smallest and the largest weight). Only
            "random" depends on the random seed.
        per_channel: whether each output channel of a convolution has its own values. Other
            layers are clustered as a whole.
        preserve_sparsity: whether weights that are zero stay zero, zero being one of the values
            (then there must be 3 or more); "auto" does so in layers where some are.
        gradient_aggregation: "sum" or "mean" of the gradients of the weights that share a value.
        layers: the layers to cluster: names, types (`keras.layers.Dense`), or a function that is
            given a layer and returns whether to cluster it. None for every layer that can be.
        skip: the layers that keep their weights, in the same forms.

    Returns:
        A functional `tf_keras.Model`; compile it before training. `strip` makes a plain Keras 3
        model of it. `load` reads it back from a file.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, if nothing in the student can be clustered, or
            if the student is already clustered or quantization-aware.

    Example:
        ```python
        clustered = keras_kd.compression.cluster(student, 16)
        distiller = keras_kd.Distiller(teacher, clustered)
        distiller.compile(keras.optimizers.Adam(1e-4), loss)
        distiller.fit(x_train, y_train)
        student = keras_kd.compression.strip(clustered)
        ```

    Reference:
        Han, Mao, Dally. Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
        Quantization and Huffman Coding. ICLR 2016.
    """
    check_model("student", student)
    fix = "16 values take 4 bits for each weight"
    check_integer("num_clusters", num_clusters, at_least=2, fix=fix)
    check_choice("initialization", initialization, _INITIALIZATIONS)
    check_choice("gradient_aggregation", gradient_aggregation, _AGGREGATIONS)
    check_flag("per_channel", per_channel)
    _check_preserve_sparsity(preserve_sparsity)
    graph = graphs.read(student)
    check_state(graph, "cluster")

    def supports(layer: Any) -> bool:
        is_asked = layers is not None or not is_depthwise(layer, CLUSTERABLE)
        return is_asked and layer.trainable and bool(kernels(layer, CLUSTERABLE))

    if not is_keras_model(student):
        # A function is given the user's own layers, which pruning has wrapped.
        student = rebuild(graph, tf_keras(), dismantle)
        graph = graphs.read(student)
    chosen = select(graph, layers, skip, supports, "clustered")
    plain = to_tf_keras(student) if is_keras_model(student) else student
    own = {name: plain.get_layer(name) for name in chosen}
    keeps_zeros = {name: _keeps_zeros(layer, preserve_sparsity) for name, layer in own.items()}
    _check_room_for_zero(num_clusters, keeps_zeros)

    from keras_kd.compression.clustering import _wrapper

    wrappers: list[Any] = []

    def wrap(layer: Any) -> Any:
        if layer.name not in chosen:
            return layer
        wrappers.append(
            _wrapper.ClusterWeights(
                layer,
                int(num_clusters),
                _wrapper.INITIALIZATIONS[initialization],
                preserve_sparsity=keeps_zeros[layer.name],
                cluster_per_channel=per_channel,
                cluster_gradient_aggregation=_wrapper.AGGREGATIONS[gradient_aggregation],
            )
        )
        return wrappers[-1]

    clustered = rebuild(graphs.read(plain), tf_keras(), lambda layer: [record_of(layer)], wrap)
    for wrapper in wrappers:
        wrapper.initialize()
    return clustered


def _keeps_zeros(layer: Any, preserve_sparsity: bool | str) -> bool:
    if preserve_sparsity != "auto":
        return bool(preserve_sparsity)
    found = kernels(layer, CLUSTERABLE)
    shares = [np.mean(kernel.weight.numpy() == 0) for kernel in found]
    # A kernel that begins with nothing but zeros is not pruned, it is untrained.
    return any(0 < share < 1 for share in shares)


def _check_preserve_sparsity(value: Any) -> None:
    if not isinstance(value, bool) and value != "auto":
        raise problem(
            f"preserve_sparsity={value!r}",
            "'auto', True or False",
            "leave it out: 'auto' keeps the zeros of a pruned student",
        )


def _check_room_for_zero(num_clusters: int, keeps_zeros: Mapping[str, bool]) -> None:
    sparse = [name for name, keeps in keeps_zeros.items() if keeps]
    if sparse and num_clusters < 3:
        raise problem(
            f"num_clusters={num_clusters} for the layers {sparse}, whose zeros are kept",
            "3 or more: zero, and values of both signs",
            "raise num_clusters, or pass preserve_sparsity=False",
        )
