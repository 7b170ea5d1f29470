"""Convolutions as TFLite computes them: in two dimensions, separable ones rounded in between.

Importing this imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def is_flat(layer: Any) -> bool:
    """Whether a Conv1D has the kernel of two dimensions that `WeightQuantizer` makes."""
    return type(layer).__name__ == "Conv1D" and len(layer.kernel.shape) == 4


def flat(layer: Any, inputs: tf.Tensor) -> tf.Tensor:
    """What a Conv1D of tf_keras computes; its kernel has the shape (1, width, in, out)."""
    form = _Form(layer)
    outputs = tf.nn.conv2d(
        form.padded(inputs), layer.kernel, form.strides, form.padding, form.order, form.dilations
    )
    return form.finished(outputs)


def separable(
    layer: Any, inputs: tf.Tensor, between: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """What a SeparableConv1D or SeparableConv2D of tf_keras computes.

    Args:
        layer: the layer, with kernels of two dimensions.
        inputs: its inputs.
        between: is given what the depthwise convolution computes, and returns what the pointwise
            one is given.
    """
    form = _Form(layer)
    outputs = tf.nn.depthwise_conv2d(
        form.padded(inputs),
        layer.depthwise_kernel,
        form.strides,
        form.padding,
        form.order,
        layer.dilation_rate if layer.rank == 2 else (1, *layer.dilation_rate),
    )
    outputs = tf.nn.conv2d(between(outputs), layer.pointwise_kernel, 1, "VALID", form.order)
    return form.finished(outputs)


class _Form:
    """A layer's options in the form of the operations of two dimensions."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._is_flat = layer.rank == 1
        is_last = layer.data_format == "channels_last"
        self.order: Any = "NHWC" if is_last else "NCHW"
        self.padding: Any = "VALID" if layer.padding == "causal" else layer.padding.upper()
        # Depthwise convolutions take only equal strides; those of the new dimension do not matter.
        strides = layer.strides * 2 if self._is_flat else layer.strides
        dilations = (1, *layer.dilation_rate) if self._is_flat else layer.dilation_rate
        self.strides, self.dilations = (
            (1, *sizes, 1) if is_last else (1, 1, *sizes) for sizes in (strides, dilations)
        )
        self._new_axis = 1 if is_last else 2

    def padded(self, inputs: tf.Tensor) -> tf.Tensor:
        """The inputs in two dimensions."""
        if self._layer.padding == "causal":
            inputs = tf.pad(inputs, self._layer._compute_causal_padding(inputs))
        return tf.expand_dims(inputs, self._new_axis) if self._is_flat else inputs

    def finished(self, outputs: tf.Tensor) -> tf.Tensor:
        """The outputs with bias and activation, in the layer's own shape."""
        layer = self._layer
        if layer.use_bias:
            outputs = tf.nn.bias_add(outputs, layer.bias, self.order)
        if self._is_flat:
            outputs = tf.squeeze(outputs, [self._new_axis])
        return outputs if layer.activation is None else layer.activation(outputs)
