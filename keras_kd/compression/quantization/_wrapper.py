"""TF-MOT's quantization wrapper, completed. Importing this imports TF-MOT, which takes seconds."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import tf_keras

from keras_kd.compression._tfmot import quantize_layer, tfmot, tfmot_utils
from keras_kd.compression.bridge.translation import LayerRecord, named_weights, record_of
from keras_kd.compression.quantization import _convolutions
from keras_kd.compression.quantization._quantizers import (
    FixedRangeQuantizer,
    QuantizedActivation,
    packed,
    unpacked,
    with_structure,
)

_quantization = tfmot.quantization.keras
_registered = tf_keras.saving.register_keras_serializable("keras_kd")


class QuantizeConfig(_quantization.QuantizeConfig):
    """What a wrapper quantizes. Unlike TF-MOT's configs it is saved with its quantizers.

    Args:
        weights: quantizers by the path of the weight in the layer, such as "kernel" or
            "cell.kernel".
        between: the quantizer between the halves of a separable convolution.
        activation: the quantizer around the layer's activation.
        output: the quantizer of the layer's output.
    """

    def __init__(
        self,
        weights: Mapping[str, Any] | None = None,
        between: Any = None,
        activation: Any = None,
        output: Any = None,
    ) -> None:
        self.weights = dict(weights or {})
        self.between = between
        self.activation = activation
        self.output = output

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Each weight that is quantized, and its quantizer."""
        return [(getattr(*part_of(layer, path)), item) for path, item in self.weights.items()]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """The activation and its quantizer, if it has one."""
        return [] if self.activation is None else [(layer.activation, self.activation)]

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The quantizer of the output, if it has one."""
        return [] if self.output is None else [self.output]

    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        """Put tensors where the layer has its weights."""
        for path, weight in zip(self.weights, quantize_weights, strict=True):
            owner, attribute = part_of(layer, path)
            # Past Keras' own __setattr__, which would forget the variable.
            vars(owner)[attribute] = weight

    def set_quantize_activations(self, layer: Any, quantize_activations: Sequence[Any]) -> None:
        """Put a function where the layer has its activation."""
        for activation in quantize_activations:
            vars(layer)["activation"] = activation

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "weights": {path: packed(item) for path, item in self.weights.items()},
            "between": packed(self.between),
            "activation": packed(self.activation),
            "output": packed(self.output),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> QuantizeConfig:
        """Make the config that `get_config` describes."""
        config = dict(config)
        weights = {path: unpacked(item) for path, item in config.pop("weights").items()}
        return cls(weights, **{name: unpacked(item) for name, item in config.items()})


def part_of(layer: Any, path: str) -> tuple[Any, str]:
    """The part of a layer that has a weight, and the name of the weight there."""
    *owners, attribute = path.split(".")
    for name in owners:
        layer = getattr(layer, name)
    return layer, attribute


@_registered
class QuantizeWrapper(_quantization.QuantizeWrapper):
    """TF-MOT's wrapper, with the layer's own weights in the layer except while it is called.

    TF-MOT's own leaves tensors of the last trace in their place, forgets masks and all arguments
    but the first, trains layers that are frozen, and does not load from a `.keras` file.
    """

    def __init__(self, layer: Any, quantize_config: QuantizeConfig, **options: Any) -> None:
        super().__init__(layer, quantize_config, **options)
        self.supports_masking = layer.supports_masking
        # Setting it makes Keras look at the layer's input again.
        if self._call_spec.expects_mask_arg != layer._call_spec.expects_mask_arg:
            self._call_spec.expects_mask_arg = layer._call_spec.expects_mask_arg

    def build(self, input_shape: Any) -> None:
        """Build the layer, and the variables of its quantizers."""
        tf_keras.layers.Wrapper.build(self, input_shape)
        config = self.quantize_config
        pairs = config.get_weights_and_quantizers(self.layer)
        weights = [
            (weight, quantizer, quantizer.build(weight.shape, path.replace(".", "_"), self))
            for path, (weight, quantizer) in zip(config.weights, pairs, strict=True)
        ]
        activations = [
            QuantizedActivation(activation, quantizer, None, self)
            for activation, quantizer in config.get_activations_and_quantizers(self.layer)
        ]
        between, output = (
            quantizer and (quantizer, quantizer.build(None, name, self))
            for name, quantizer in (("between", config.between), ("output", config.output))
        )
        # Past Keras' own __setattr__, for which the layer's weights would be the wrapper's too.
        self.__dict__.update(
            weight_quantizers=weights, activations=activations, between=between, output_range=output
        )

    def call(self, inputs: Any, *args: Any, **options: Any) -> Any:
        """The layer's outputs with quantized weights, activations and outputs."""
        training = options.pop("training", None)
        if training is None:
            training = tf_keras.backend.learning_phase()
        if self.layer._call_spec.expects_training_arg:
            options["training"] = training
        with self._quantized(training):
            if self.between is not None:
                outputs = _convolutions.separable(
                    self.layer,
                    inputs,
                    functools.partial(_quantized, *self.between, training=training),
                )
            elif _convolutions.is_flat(self.layer):
                outputs = _convolutions.flat(self.layer, inputs)
            else:
                outputs = self.layer.call(inputs, *args, **options)
        if self.output_range is None:
            return outputs
        quantizer, variables = self.output_range
        return _quantized(quantizer, variables, outputs, training)

    @contextmanager
    def _quantized(self, training: Any) -> Iterator[None]:
        """Have quantized weights and the quantized activation in place of the layer's own."""
        config = self.quantize_config
        weights = [
            _quantized(quantizer, variables, weight, training)
            for weight, quantizer, variables in self.weight_quantizers
        ]
        for quantized in self.activations:
            quantized.training = training
        config.set_quantize_weights(self.layer, weights)
        config.set_quantize_activations(self.layer, self.activations)
        try:
            yield
        finally:
            config.set_quantize_weights(self.layer, [item[0] for item in self.weight_quantizers])
            config.set_quantize_activations(
                self.layer, [quantized.activation for quantized in self.activations]
            )

    @property
    def rounds(self) -> bool:
        """Whether it rounds anything, or else only keeps the structure of weights."""
        items = [quantizer for _, quantizer, _ in self.weight_quantizers]
        return self.output_quantizer is not None or any(hasattr(i, "num_bits") for i in items)

    @property
    def output_quantizer(self) -> tuple[Any, Mapping[str, Any]] | None:
        """What rounds the layer's outputs, and the variables of its range."""
        for activation in self.activations:
            ranges = activation.ranges()
            return (activation.quantizer, ranges[-1]) if ranges else None
        return self.output_range

    def weight_variables(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The path of each weight that has a quantizer, and the quantizer's variables."""
        variables = [variables for _, _, variables in self.weight_quantizers]
        return list(zip(self.quantize_config.weights, variables, strict=True))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the layer's outputs."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask that the layer computes."""
        return self.layer.compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = tf_keras.layers.Wrapper.get_config(self)
        return {**config, "quantize_config": self.quantize_config.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> QuantizeWrapper:
        """Make the wrapper that `get_config` describes."""
        config = dict(config)
        layer = config.pop("layer")
        # Files in the older format, .h5, name no modules.
        layer = tf_keras.layers.deserialize(layer, use_legacy_format="module" not in layer)
        return cls(layer, QuantizeConfig.from_config(config.pop("quantize_config")), **config)


@_registered
class QuantizeLayer(quantize_layer.QuantizeLayer):
    """TF-MOT's layer that quantizes an input, made to pass masks on and to load from files."""

    def __init__(self, quantizer: Any, **options: Any) -> None:
        super().__init__(quantizer, **options)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Add the variables of the range, once."""
        super().build(input_shape)
        self.built = True

    @property
    def has_fixed_range(self) -> bool:
        """Whether data do not change the range."""
        return isinstance(self.quantizer, FixedRangeQuantizer)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = tf_keras.layers.Layer.get_config(self)
        return {**config, "quantizer": packed(self.quantizer)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> QuantizeLayer:
        """Make the layer that `get_config` describes."""
        config = dict(config)
        return cls(unpacked(config.pop("quantizer")), **config)


def _quantized(quantizer: Any, variables: Any, tensor: Any, training: Any) -> Any:
    """What a quantizer makes of a tensor; whether in training may be known in the graph only."""
    return tfmot_utils.smart_cond(
        training,
        lambda: quantizer(tensor, True, weights=variables),
        lambda: quantizer(tensor, False, weights=variables),
    )


def quantize_layers(model: Any) -> list[Any]:
    """The layers that quantize the inputs of a model."""
    return [layer for layer in model.layers if isinstance(layer, quantize_layer.QuantizeLayer)]


def wrappers(model: Any) -> list[Any]:
    """The quantization wrappers of a model."""
    return [layer for layer in model.layers if isinstance(layer, QuantizeWrapper)]


def dismantle(layer: Any) -> list[LayerRecord] | None:
    """The plain layers inside a layer of quantization; None for any other."""
    if isinstance(layer, quantize_layer.QuantizeLayer):
        return []
    if not isinstance(layer, QuantizeWrapper):
        return None
    record = record_of(layer.layer)
    # An update may have set equal weights apart by a rounding error.
    held = {
        id(weight): with_structure(weight, variables).numpy()
        for weight, _, variables in layer.weight_quantizers
    }
    weights = {
        name: held.get(id(weight), record.weights[name])
        for name, weight in named_weights(layer.layer).items()
    }
    return [replace(record, weights=weights)]
