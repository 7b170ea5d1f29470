"""A model without its batch normalizations: in inference each is a factor and a bias.

Where one follows a convolution and nothing else reads that, both go into the convolution's weights.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

layers = keras.layers
CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


class Identity(layers.Layer):
    """Stands where a batch normalization was."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """What comes in."""
        return inputs


def folded(model: keras.Model) -> keras.Model:
    """A copy of a Functional model for inference, its batch normalizations in its convolutions."""
    pairs = foldable(model)
    gone = {normalization.name for normalization in pairs.values()}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in gone:
            return Identity(name=layer.name)
        config = layer.get_config()
        if layer.name in pairs:
            config["use_bias"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in pairs:
            copy.get_layer(layer.name).set_weights(_with_normalization(layer, pairs[layer.name]))
        elif layer.weights and layer.name not in gone:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy


def foldable(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """By the name of each convolution that can take one up, the batch normalization behind it."""
    return {
        layer.name: behind[0]
        for layer in model.layers
        if isinstance(layer, CONVOLUTIONS)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and len(layer._inbound_nodes) == 1
        and len(behind := [node.operation for node in layer._outbound_nodes]) == 1
        and isinstance(behind[0], layers.BatchNormalization)
        and len(behind[0]._inbound_nodes) == 1
        and behind[0].axis in (-1, len(layer.output.shape) - 1)
        and layer.output not in model.outputs
    }


def _with_normalization(
    layer: keras.layers.Layer, normalization: keras.layers.BatchNormalization
) -> list[np.ndarray]:
    """Kernel and bias that give what the normalization makes of the layer's output."""
    kernel, *bias = layer.get_weights()
    values = {weight.name: weight.numpy() for weight in normalization.weights}
    factor = values.get("gamma", 1) / np.sqrt(
        values["moving_variance"] + np.float32(normalization.epsilon)
    )
    shift = values.get("beta", 0) + (sum(bias) - values["moving_mean"]) * factor
    # A depthwise kernel ends in (channels, multiplier), which make up the output's channels.
    is_depthwise = isinstance(layer, layers.DepthwiseConv2D)
    columns = factor.reshape(kernel.shape[2:]) if is_depthwise else factor
    return [kernel * columns, shift]
