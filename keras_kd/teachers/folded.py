"""A teacher that computes batch normalizations together with the convolutions before them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_kd.taps import Tap, Tapped
from keras_kd.teachers.base import ModelTeacher

# Multiplying a kernel costs something in every step; with so many examples it costs less than it
# saves.
_BATCH_SIZE = 8


class _Pair(NamedTuple):
    """A convolution and the batch normalization that alone reads it."""

    convolution: Any
    normalization: Any


@keras.saving.register_keras_serializable(package="keras_kd")
class Folded(ModelTeacher):
    """A trained model, asked with less work: the same outputs but for rounding in float32.

    In inference a batch normalization is a factor and a shift per channel. Where one follows a
    convolution, the factor multiplies the kernel, which is small, instead of what the convolution
    says of every example, which is not. The model stays as it is, and so do its weights: a step
    multiplies the kernels as they are at that time. Layers that a loss reads say what they say in
    the model.

    This pays where the teacher runs on a CPU and has convolutions over many positions, above all
    depthwise ones. Layers where it would not pay, or be another function, are left alone, and so
    are all of a subclassed or tf_keras model.

    Args:
        model: a trained model.

    Raises:
        ValueError: if it is not a model.

    Example:
        ```python
        distiller = keras_kd.Distiller(keras_kd.teachers.Folded(teacher), student)
        ```

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference, CVPR 2018, section 3.2, which folds so as well.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._pairs = _foldable(model)

    @property
    def folded_layer_names(self) -> list[str]:
        """The convolutions that are computed together with a batch normalization."""
        return [pair.convolution.name for pair in self._pairs]

    def tap(self, layer_names: Sequence[str]) -> None:
        """Read these layers of the model; a convolution among them is left as it is."""
        self._tap = Tap(self.model, layer_names)
        read = [id(layer) for layer in self._tap.layers.values()]
        self._pairs = [pair for pair in _foldable(self.model) if id(pair.convolution) not in read]

    def __call__(self, inputs: Any, student: Tapped | None) -> Tapped:
        """One forward pass."""
        with _folding(self._pairs):
            return super().__call__(inputs, student)


def _foldable(model: Any) -> list[_Pair]:
    """The pairs in a model of Keras 3 with a graph, and in such models inside of it."""
    # A class of somebody else's may call its layers in other ways than its graph says.
    own = type(model).__module__.startswith("keras.")
    if not own or not isinstance(model, keras.Model) or getattr(model, "inputs", None) is None:
        return []
    pairs = []
    for layer in model.layers:
        pairs += _foldable(layer)
        if type(layer) in _CALLS and _is_foldable(layer, model):
            pairs.append(_Pair(layer, layer._outbound_nodes[0].operation))
    return pairs


def _is_foldable(layer: Any, model: Any) -> bool:
    """Whether nothing but one batch normalization over channels reads a convolution."""
    if len(layer._inbound_nodes) != 1 or len(layer._outbound_nodes) != 1:
        return False
    behind = layer._outbound_nodes[0].operation
    output = layer.output
    if type(behind) is not keras.layers.BatchNormalization or len(behind._inbound_nodes) != 1:
        return False
    sizes = output.shape[1:]
    return (
        layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and behind.axis in (-1, len(output.shape) - 1)
        and {layer.compute_dtype, behind.compute_dtype} == {"float32"}
        and not any(output is other for other in keras.tree.flatten(model.outputs))
        and (None in sizes or math.prod(layer.kernel.shape) <= _BATCH_SIZE * math.prod(sizes))
    )


@contextmanager
def _folding(pairs: Sequence[_Pair]) -> Iterator[None]:
    """While this is open, the convolutions compute what the normalizations would make of them."""
    # Past Keras' own __setattr__, for which this would be a part of the layer.
    for pair in pairs:
        object.__setattr__(pair.convolution, "call", _folded_call(pair))
        object.__setattr__(pair.normalization, "call", _as_it_comes)
    try:
        yield
    finally:
        for layer in (layer for pair in pairs for layer in pair):
            object.__delattr__(layer, "call")


def _folded_call(pair: _Pair) -> Callable[[Any], Any]:
    layer, normalization = pair

    def call(inputs: Any) -> Any:
        factor = ops.rsqrt(normalization.moving_variance + normalization.epsilon)
        if normalization.scale:
            factor = factor * normalization.gamma
        shift = -normalization.moving_mean
        if layer.use_bias:
            shift = shift + layer.bias
        shift = shift * factor
        if normalization.center:
            shift = shift + normalization.beta
        outputs = _CALLS[type(layer)](layer, inputs, factor)
        return outputs + ops.reshape(shift, (1,) * (len(outputs.shape) - 1) + (-1,))

    return call


def _as_it_comes(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    return inputs


def _convolution(layer: Any, inputs: Any, factor: Any) -> Any:
    return layer.convolution_op(inputs, layer.kernel * factor)


def _depthwise_convolution(layer: Any, inputs: Any, factor: Any) -> Any:
    return ops.depthwise_conv(
        inputs,
        # It ends in channels and multiplier, which make up the channels of the output.
        layer.kernel * ops.reshape(factor, layer.kernel.shape[-2:]),
        strides=layer.strides,
        padding=layer.padding,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
    )


# By the exact class: a subclass can compute something else.
_CALLS: dict[type, Callable[[Any, Any, Any], Any]] = {
    keras.layers.Conv2D: _convolution,
    keras.layers.DepthwiseConv2D: _depthwise_convolution,
}
