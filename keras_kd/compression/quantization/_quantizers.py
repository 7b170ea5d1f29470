"""TF-MOT's quantizers, completed. Importing this imports TF-MOT, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_kd import _replicas
from keras_kd.compression._tfmot import quantize_aware_activation, tfmot
from keras_kd.compression.quantization.placement import function_name
from keras_kd.compression.quantization.structure import ZERO

_quantizers = tfmot.quantization.keras.quantizers


class WeightQuantizer(_quantizers.LastValueQuantizer):
    """Symmetric, in the range that the weights have now; zeros and equal weights can stay so.

    TF-MOT's own keeps the structure of a few kinds of layers only, trains copies of the weights
    for it and forgets it when the student is saved. It also quantizes depthwise kernels in one
    range, where TFLite has a range for each channel.

    Args:
        num_bits: 2 to 8.
        channel_axes: how many of the last axes make up the channels that have a range each; 0 for
            one range for the whole kernel.
        keeps_structure: whether there is a structure to keep, see `structure_of`.
    """

    def __init__(self, num_bits: int, channel_axes: int, keeps_structure: bool = False) -> None:
        super().__init__(num_bits, per_axis=channel_axes > 0, symmetric=True, narrow_range=True)
        self.channel_axes = channel_axes
        self.keeps_structure = keeps_structure

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """The variables of the ranges, and of the structure."""
        variables = self._add_range_weights(layer, name, self.per_axis, self._view(tensor_shape))
        return variables | structure_variable(tensor_shape, name, layer, self.keeps_structure)

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **_: Any) -> Any:
        """The quantized kernel; in training its range is measured anew.

        A kernel of one spatial dimension becomes one of two, in which TFLite computes.
        """
        kernel = with_structure(inputs, weights)
        shape = [1] * (kernel.shape.rank == 3) + kernel.shape.as_list()
        quantized = super().__call__(tf.reshape(kernel, self._view(shape)), training, weights)
        return tf.reshape(quantized, shape)

    def _view(self, shape: Any) -> list[int]:
        """The shape with all channels on the last axis, the only one TensorFlow takes for them."""
        split = len(shape) - self.channel_axes
        if split == len(shape):
            return list(shape)
        ones = [1] * (self.channel_axes - 1)
        return [*shape[:split], *ones, int(np.prod(shape[split:]))]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "num_bits": self.num_bits,
            "channel_axes": self.channel_axes,
            "keeps_structure": self.keeps_structure,
        }


class StructureKeeper(_quantizers.Quantizer):
    """Leaves weights in float, their zeros zero and equal ones equal."""

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """The variable of the structure."""
        return structure_variable(tensor_shape, name, layer, True)

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **_: Any) -> Any:
        """The kernel with its structure."""
        return with_structure(inputs, weights)

    def get_config(self) -> dict[str, Any]:
        """There are no arguments."""
        return {}


class _OfAllReplicas(_quantizers.Quantizer):
    """For a quantizer whose range follows the data: with `tf.distribute` those of all replicas."""

    def __call__(
        self, inputs: Any, training: Any, weights: Mapping[str, Any], **options: Any
    ) -> Any:
        """The quantized tensor; in training its range follows before."""
        if not training or _replicas.number() == 1:
            return super().__call__(inputs, training, weights, **options)
        own = tf.stack([tf.reduce_min(inputs), tf.reduce_max(inputs)])[None]
        [extremes] = _replicas.gathered([own], constant=True)
        super().__call__(extremes, training, weights, **options)
        return super().__call__(inputs, False, weights, **options)


class AllValuesQuantizer(_OfAllReplicas, _quantizers.AllValuesQuantizer):
    """TF-MOT's quantizer in the range of all data seen so far."""


class MovingAverageQuantizer(_OfAllReplicas, _quantizers.MovingAverageQuantizer):
    """TF-MOT's quantizer in a range that follows the data slowly."""


class FixedRangeQuantizer(_quantizers.MovingAverageQuantizer):
    """Quantizes in a range that is given and never changes.

    TF-MOT's own supports 8 bits only and ignores other values.

    Args:
        num_bits: 2 to 8.
        low: the smallest number.
        high: the largest.
    """

    def __init__(self, num_bits: int, low: float, high: float) -> None:
        super().__init__(num_bits, per_axis=False, symmetric=False, narrow_range=False)
        self.low = low
        self.high = high

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """The variables of the range."""
        constant: Any = tf_keras.initializers.Constant
        return {
            f"{end}_var": layer.add_weight(
                f"{name}_{end}",
                initializer=constant(value),
                trainable=False,
            )
            for end, value in (("min", self.low), ("max", self.high))
        }

    def __call__(self, inputs: Any, training: Any, weights: Mapping[str, Any], **_: Any) -> Any:
        """The quantized tensor, in training too."""
        return super().__call__(inputs, False, weights)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"num_bits": self.num_bits, "low": self.low, "high": self.high}


class QuantizedActivation(quantize_aware_activation.QuantizeAwareActivation):
    """TF-MOT's activation between quantizers, for any function.

    TFLite does not fuse functions that TF-MOT does not support, so they are quantized before and
    after. So is swish, which TFLite computes as x * sigmoid(x).
    """

    _FUSED_OR_FIXED = frozenset({"linear", "relu", "relu6", "softmax", "sigmoid", "tanh"})

    def _name(self, activation: Callable[..., Any]) -> str:
        return function_name(activation)

    def _is_supported_activation(self, activation: Callable[..., Any]) -> bool:
        return True

    def _should_pre_quantize(self) -> bool:
        return self._is_other() or super()._should_pre_quantize()

    def _should_post_quantize(self) -> bool:
        name = self._name(self.activation)
        return self._is_other() or name == "relu6" or super()._should_post_quantize()

    def _is_other(self) -> bool:
        return self._name(self.activation) not in self._FUSED_OR_FIXED

    def ranges(self) -> list[dict[str, Any]]:
        """The variables of its ranges, in the order of the computation."""
        found = []
        if self._should_pre_quantize():
            found.append(self._pre_activation_vars)
        if self._should_post_quantize():
            found.append(self._post_activation_vars)
        return found


def activation_quantizer(num_bits: int) -> Any:
    """TF-MOT's quantizer of activations, whose range follows the data slowly."""
    return MovingAverageQuantizer(num_bits, per_axis=False, symmetric=False, narrow_range=False)


def input_quantizer(num_bits: int, limits: tuple[float, float] | None) -> Any:
    """The quantizer of an input: in a fixed range, or in that of all data seen so far."""
    if limits is not None:
        return FixedRangeQuantizer(num_bits, *limits)
    return AllValuesQuantizer(num_bits, per_axis=False, symmetric=False, narrow_range=False)


def packed(quantizer: Any) -> dict[str, Any] | None:
    """A quantizer as text and numbers, the same in all formats of files."""
    if quantizer is None:
        return None
    return {"class_name": type(quantizer).__name__, "config": quantizer.get_config()}


def unpacked(value: Mapping[str, Any] | None) -> Any:
    """The opposite of `packed`."""
    return None if value is None else _CLASSES[value["class_name"]](**value["config"])


_CLASSES = {
    quantizer.__name__: quantizer
    for quantizer in (
        WeightQuantizer,
        StructureKeeper,
        FixedRangeQuantizer,
        AllValuesQuantizer,
        MovingAverageQuantizer,
    )
}


def structure_variable(shape: Any, name: str, layer: Any, is_kept: bool) -> dict[str, Any]:
    """The variable that holds the structure of a kernel, if one is kept."""
    if not is_kept:
        return {}
    own_places = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    variable = layer.add_weight(
        f"{name}_structure",
        shape=shape,
        dtype=tf.int32,
        initializer=lambda shape, dtype=None: tf.constant(own_places),
        trainable=False,
    )
    return {"structure": variable}


def with_structure(kernel: Any, weights: Mapping[str, Any]) -> Any:
    """The kernel in the structure that is kept for it."""
    return held(kernel, weights["structure"]) if "structure" in weights else kernel


def held(kernel: tf.Tensor, structure: tf.Tensor) -> tf.Tensor:
    """The kernel with zeros at zero, and equal weights at the value of their first.

    In the other direction weights that are equal share the mean of their gradients: this is
    gradient descent among the kernels of that structure, and keeps equal what begins equal.
    """
    size = kernel.shape.num_elements()
    flat = tf.reshape(structure, [-1])
    is_zero = tf.equal(flat, ZERO)
    leaders = tf.maximum(flat, 0)

    def spread(values: tf.Tensor) -> tf.Tensor:
        gathered = tf.gather(values, leaders)
        return tf.reshape(tf.where(is_zero, tf.zeros_like(gathered), gathered), kernel.shape)

    @tf.custom_gradient
    def hold(variable: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            counted = tf.cast(tf.logical_not(is_zero), upstream.dtype)
            sums, members = (
                tf.math.unsorted_segment_sum(values, leaders, size)
                for values in (tf.reshape(upstream, [-1]) * counted, counted)
            )
            return spread(sums / tf.maximum(members, 1.0))

        return spread(tf.reshape(variable, [-1])), gradient

    return hold(tf.convert_to_tensor(kernel))
