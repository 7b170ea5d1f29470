"""Depthwise-separable convolutions in place of plain ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.bridge.translation import LayerRecord, record_of

# A convolution that reads the colors of pixels has too few filters to share.
_FEWEST_CHANNELS = 4
# Of a plain convolution's config, what a separable one has no place for.
_OF_PLAIN = ("groups", "kernel_constraint", "kernel_initializer", "kernel_regularizer")


def can_separate(graph: Graph) -> bool:
    """Whether a graph has a plain convolution that can be replaced."""
    return any(_is_plain(layer) for layer in graph.layers())


def separated(model: keras.Model) -> keras.Model:
    """Rebuild a model with a filter for each channel and a 1x1 convolution for each Conv2D.

    They begin as near to the old kernel as they can be: for each input channel with the first term
    of the singular value decomposition of its kernel (positions x filters).

    Args:
        model: a functional Keras 3 model.

    Raises:
        ValueError: if there is no convolution that can be replaced.
    """
    graph = graphs.read(model)
    if not can_separate(graph):
        raise problem(
            f"separable=True for {model.name!r}, which has no plain Conv2D behind the first layer",
            f"a Conv2D of more than 1x1 that reads at least {_FEWEST_CHANNELS} channels",
            "pass separable=False",
        )
    return rebuild(graph, keras, lambda layer: [_separable(layer)])


def _is_plain(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups == 1
        and layer.kernel.shape[2] >= _FEWEST_CHANNELS
        and max(layer.kernel_size) > 1
        and len({*layer.strides}) == 1
        and {*layer.dilation_rate} == {1}
    )


def _separable(layer: Any) -> LayerRecord:
    record = record_of(layer)
    if not _is_plain(layer):
        return record
    kernel = record.weights["kernel"]
    height, width, channels, filters = kernel.shape
    by_channel = np.transpose(kernel, (2, 0, 1, 3)).reshape(channels, -1, filters)
    left, values, right = np.linalg.svd(by_channel, full_matrices=False)
    root = np.sqrt(values[:, :1])
    depthwise = (left[:, :, 0] * root).T.reshape(height, width, channels, 1)
    pointwise = (right[:, 0] * root).reshape(1, 1, channels, filters)
    others = {name: value for name, value in record.weights.items() if name != "kernel"}
    return replace(
        record,
        layer_class=keras.layers.SeparableConv2D,
        config={key: value for key, value in record.config.items() if key not in _OF_PLAIN},
        weights={"depthwise_kernel": depthwise, "pointwise_kernel": pointwise, **others},
    )
