"""TF-MOT's quantization classes, completed. Importing this imports TF-MOT, which takes seconds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd._keras import tf_keras
from keras_kd.compression._tfmot import default_8bit_quantize_configs as configs
from keras_kd.compression._tfmot import quantize_layer, tfmot
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.bridge.translation import LayerRecord, weight_name

_quantization = tfmot.quantization.keras
_default_8bit = _quantization.default_8bit

# Activations for which TF-MOT knows where TFLite quantizes.
_IN_LAYER = frozenset({"linear", "relu", "softmax", "sigmoid", "tanh", "swish", "gelu"})
_ALONE = _IN_LAYER | {"relu6"}
# These hand on values of their input, which are quantized already.
_PASS_ON = """
    AlphaDropout Cropping1D Cropping2D Cropping3D GaussianDropout GaussianNoise Identity Masking
    MaxPooling1D MaxPooling3D RepeatVector UpSampling1D UpSampling3D ZeroPadding3D
"""
_FOLDS_BATCH_NORMALIZATION = frozenset({"Conv2D", "DepthwiseConv2D", "Dense"})


class _KeepZerosRegistry(_default_8bit.Default8BitQuantizeRegistry):
    """TF-MOT's registry, with its sparsity-preserving quantizer where a kernel is sparse (PQAT).

    TF-MOT's own prune-preserving registry refuses layers that it cannot prune, and gives every
    other one a mask, also kernels that begin at zero.
    """

    def get_quantize_config(self, layer: Any) -> Any:
        if _is_sparse(layer):
            scheme = _quantization.collab_opts.Default8BitPrunePreserveQuantizeScheme()
            return scheme.get_quantize_registry().get_quantize_config(layer)
        return super().get_quantize_config(layer)


class _Scheme(_default_8bit.Default8BitQuantizeScheme):
    def get_quantize_registry(self) -> _KeepZerosRegistry:
        return _KeepZerosRegistry()


def _is_sparse(layer: Any) -> bool:
    """Whether the layer's kernel has zeros to keep, and a quantizer that keeps them."""
    if type(layer).__name__ not in ("Conv2D", "Dense"):
        return False
    zeros = np.mean(np.asarray(layer.kernel) == 0)
    return bool(0 < zeros < 1)


def split(record: LayerRecord) -> list[LayerRecord]:
    """The layers that TF-MOT can quantize in place of one that it cannot, computing the same.

    They compute in float32: in float16 quantization-aware training fails.
    """
    name = record.layer_class.__name__
    config = {**record.config, "dtype": "float32"}
    if name == "SeparableConv2D":
        depthwise, pointwise = _separated(replace(record, config=config))
        return [depthwise, *split(pointwise)]
    if name == "Activation" or config.get("activation") in (None, *_IN_LAYER):
        return [replace(record, config=config)]
    activation = {"activation": config["activation"], "dtype": "float32"}
    return [
        replace(record, config={**config, "activation": "linear"}),
        LayerRecord(tf_keras().layers.Activation, record.name + "_activation", activation, {}),
    ]


def _separated(record: LayerRecord) -> tuple[LayerRecord, LayerRecord]:
    """A separable convolution as a depthwise and a pointwise one."""
    config = dict(record.config)
    depthwise = {
        option: config.pop(option)
        for option in (
            "kernel_size",
            "strides",
            "padding",
            "dilation_rate",
            "depth_multiplier",
            "depthwise_initializer",
            "depthwise_regularizer",
            "depthwise_constraint",
        )
    }
    depthwise |= {option: config[option] for option in ("data_format", "dtype", "trainable")}
    pointwise = {option.replace("pointwise_", "kernel_"): value for option, value in config.items()}
    weights = dict(record.weights)
    depthwise_weights = {"depthwise_kernel": weights.pop("depthwise_kernel")}
    weights["kernel"] = weights.pop("pointwise_kernel")
    layers = tf_keras().layers
    return (
        LayerRecord(
            layers.DepthwiseConv2D,
            record.name + "_depthwise",
            {**depthwise, "use_bias": False},
            depthwise_weights,
        ),
        LayerRecord(
            layers.Conv2D,
            record.name + "_pointwise",
            {**pointwise, "kernel_size": 1, "groups": 1},
            weights,
        ),
    )


def annotate(layer: Any, folds: bool) -> Any:
    """The layer with a note that tells TF-MOT how to quantize it.

    `folds` says that the layer is a BatchNormalization that TFLite folds into the one before.
    """
    name = type(layer).__name__
    if name == "Activation":
        known = getattr(layer.activation, "__name__", None) in _ALONE
    else:
        known = folds or _default_8bit.Default8BitQuantizeRegistry().supports(layer)
    if known:
        return _quantization.quantize_annotate_layer(layer)
    config = (
        configs.NoOpQuantizeConfig()
        if name in _PASS_ON.split()
        else configs.Default8BitOutputQuantizeConfig()
    )
    return _quantization.quantize_annotate_layer(layer, config)


def float_layers(graph: Graph) -> set[str]:
    """The names of the layers that stay in float: embeddings, and what reads integers."""
    integers = {spec.slot for spec in graph.input_specs if "float" not in spec.dtype}
    return {
        call.layer.name
        for call in graph.calls
        if type(call.layer).__name__ == "Embedding" or integers.intersection(call.operands())
    }


def folding_layers(graph: Graph) -> set[str]:
    """The names of the BatchNormalizations that directly follow what they are folded into."""
    producer = {slot: call for call in graph.calls for slot in call.results}
    calls = Counter(call.layer.name for call in graph.calls)
    readers = Counter(slot for call in graph.calls for slot in call.operands())
    readers.update(keras.tree.flatten(graph.outputs))
    return {
        call.layer.name
        for call in graph.calls
        if type(call.layer).__name__ == "BatchNormalization"
        for slot in call.operands()
        if slot in producer
        and readers[slot] == calls[call.layer.name] == calls[producer[slot].layer.name] == 1
        and _can_fold(producer[slot].layer)
    }


def _can_fold(layer: Any) -> bool:
    is_linear = getattr(getattr(layer, "activation", None), "__name__", None) == "linear"
    return type(layer).__name__ in _FOLDS_BATCH_NORMALIZATION and is_linear


def apply(annotated: Any) -> Any:
    """Quantize an annotated model; frozen layers stay frozen.

    Raises:
        ValueError: if TF-MOT cannot.
    """
    try:
        with _quantization.quantize_scope():
            quantized = _quantization.quantize_apply(annotated, scheme=_Scheme())
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            problem(
                f"student {annotated.name!r}, which TF-MOT cannot quantize: {one_line(error)}",
                "layers that TF-MOT's 8-bit scheme supports or can leave in float",
                "replace the layer it names, or quantize after training with"
                " keras_kd.tflite.convert(student, 'int8', representative_data)",
            )
        ) from error
    for wrapper in wrappers(quantized):
        if not wrapper.layer.trainable:
            # In front, so that saved weights keep TF-MOT's order.
            wrapper._non_trainable_weights[:0] = wrapper._trainable_weights
            wrapper._trainable_weights.clear()
    return quantized


def quantize_layers(model: Any) -> list[Any]:
    """The layers that quantize the inputs of a model."""
    return [layer for layer in model.layers if isinstance(layer, quantize_layer.QuantizeLayer)]


def wrappers(model: Any) -> list[Any]:
    """The quantization wrappers of a model."""
    return [layer for layer in model.layers if isinstance(layer, _quantization.QuantizeWrapper)]


def dismantle(layer: Any) -> list[LayerRecord] | None:
    """The plain layers that a layer of TF-MOT's quantization stands for; None for any other."""
    if isinstance(layer, quantize_layer.QuantizeLayer):
        return []
    if not isinstance(layer, _quantization.QuantizeWrapper):
        return None
    inner = layer.layer
    config = inner.get_config()
    for quantized in layer._quantize_activations:
        config["activation"] = getattr(quantized.activation, "__name__", "linear")
    weights = {
        weight_name(weight): weight.numpy()
        for weight in layer.weights
        if not weight_name(weight).endswith(("_min", "_max", "optimizer_step"))
    }
    return [LayerRecord(type(inner), inner.name, config, weights)]
