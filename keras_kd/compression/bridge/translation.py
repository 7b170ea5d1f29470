"""Translation of layers from one version of Keras to the other."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import short, tf_keras
from keras_kd.compression.bridge import activations
from keras_kd.compression.bridge.operations import Operation
from keras_kd.compression.bridge.serialized import (
    config_of,
    from_config,
    from_text,
    function_from_text,
    function_to_text,
    to_text,
)
from keras_kd.compression.bridge.weights import is_seed, named_weights, weight_name
from keras_kd.compression.layers import Twin, twin_of

__all__ = [
    "LayerRecord",
    "make_layer",
    "named_weights",
    "record_of",
    "set_weights",
    "to_keras_record",
    "to_opaque_record",
    "to_tf_keras_record",
    "weight_name",
]


@dataclass(frozen=True)
class LayerRecord:
    """A layer taken apart: enough to make it again.

    `config` is the layer's own `get_config()`, or holds records in place of the layers inside;
    `weights` maps the names of `named_weights`, such as `"kernel"`, to values; `frozen` lists which
    layers inside a Keras 3 layer do not train though it does, as numbers in Keras' own order.
    """

    layer_class: type
    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    frozen: Sequence[int] = ()


# What an option that only one Keras has must be, where its default means "as configured".
_STANDARD = {"data_format": "channels_last"}
# Weights are copied and data are fixed-size, so these have no effect on the rebuilt layer. Random
# numbers are others in the other Keras whatever their seed.
_WITHOUT_EFFECT = """
    batch_input_shape fused implementation input_length key_shape query_shape renorm_momentum
    rng_type seed use_cudnn value_shape
"""


class NoCounterpart(ValueError):
    """A layer that the other Keras does not have, or not with these options."""


def record_of(layer: Any) -> LayerRecord:
    """Take apart a plain layer of either Keras."""
    weights = {name: weight.numpy() for name, weight in named_weights(layer).items()}
    return LayerRecord(type(layer), layer.name, config_of(layer), weights, _frozen_parts(layer))


def to_tf_keras_record(record: LayerRecord) -> LayerRecord:
    """The record of the tf_keras layer that replaces a Keras 3 layer.

    Raises:
        NoCounterpart: if tf_keras has no such layer, or not with these options; names the layer.
    """
    return _translate(record, tf_keras())


def to_opaque_record(layer: Any) -> LayerRecord:
    """The record of a tf_keras layer that holds a Keras 3 layer, or an operation, as it is.

    Raises:
        ValueError: if the layer cannot be made again from its config; names the layer.
    """
    from keras_kd.compression.bridge.opaque import OpaqueLayer, OperationLayer

    record = record_of(layer)
    if isinstance(layer, Operation):
        return replace(record, layer_class=OperationLayer)
    config = {
        "layer": to_text(layer),
        "frozen": record.frozen,
        "dtype": _policy_name(record, layer.dtype_policy.name),
        "trainable": layer.trainable,
    }
    return replace(record, layer_class=OpaqueLayer, config=config)


def to_keras_record(record: LayerRecord) -> LayerRecord:
    """The record of the Keras 3 layer that replaces a tf_keras layer.

    Raises:
        NoCounterpart: if Keras 3 has no such layer, or not with these options; names the layer.
    """
    from keras_kd.compression.bridge.opaque import OpaqueLayer, OperationLayer

    if record.layer_class is OperationLayer:
        config = {option: record.config[option] for option in ("operation", "arguments")}
        return LayerRecord(Operation, record.name, config, {})
    if record.layer_class is OpaqueLayer:
        layer = from_text(record.config["layer"])
        config = config_of(layer)
        if "trainable" in config:
            config["trainable"] = record.config["trainable"]
        frozen = record.config["frozen"]
        return replace(record, layer_class=type(layer), config=config, frozen=frozen)
    return _translate(record, keras)


def make_layer(record: LayerRecord) -> Any:
    """The unbuilt layer of a record."""
    layer_class, config = record.layer_class, {**record.config, "name": record.name}
    parts = {option: _made(value) for option, value in config.items() if _holds_records(value)}
    twin = twin_of(layer_class)
    if parts or (twin and twin.by_arguments):
        return layer_class(**{**config, **parts})
    if issubclass(layer_class, keras.layers.Layer):
        return from_config(layer_class, config)
    if twin and not set(twin.of_built) <= set(config):
        return layer_class(**config)
    return layer_class.from_config(config)


def set_weights(layer: Any, record: LayerRecord) -> None:
    """Give a built layer its weights, paired by name.

    Raises:
        ValueError: if the layer's weights have other names or shapes; names the layer.
    """
    weights = named_weights(layer)
    expected = {
        name: tuple(weight.shape)
        for name, weight in weights.items()
        if name in record.weights or not is_seed(name)
    }
    received = {name: tuple(value.shape) for name, value in record.weights.items()}
    if expected != received:
        raise problem(
            f"layer {record.name!r} with the weights {received}",
            f"the weights {expected} of a {type(layer).__name__}",
            "leave this layer out of the student",
        )
    for name, value in record.weights.items():
        weights[name].assign(value)
    if isinstance(layer, keras.layers.Layer):
        _freeze(layer, record)
    twin = twin_of(type(layer))
    if record.weights and twin is not None:
        twin.finish(layer)


def _frozen_parts(layer: Any) -> list[int]:
    if not isinstance(layer, keras.layers.Layer) or not layer.trainable:
        # Freezing a layer freezes all in it, and so does unfreezing.
        return []
    parts = layer._flatten_layers(include_self=False)
    return [index for index, part in enumerate(parts) if not part.trainable]


def _freeze(layer: keras.layers.Layer, record: LayerRecord) -> None:
    """Freeze what is inside a built layer, which a config does not reach."""
    parts = list(layer._flatten_layers(include_self=False))
    for index in record.frozen if layer.trainable else range(len(parts)):
        parts[index].trainable = False


def _translate(record: LayerRecord, target: ModuleType) -> LayerRecord:
    twin = twin_of(record.layer_class)
    if twin is None:
        raise problem(
            f"layer {record.name!r} of class {record.layer_class.__module__}."
            f"{record.layer_class.__name__}",
            f"a layer that {target.__name__} has too",
            "replace the layer, or leave it out of the student",
            kind=NoCounterpart,
        )
    back = target is keras
    if not back and not twin.is_alike(record.config):
        raise NoCounterpart(f"layer {record.name!r} computes something else in tf_keras")
    layer_class = _class_in(target, record.layer_class.__name__)
    options, weights = (_inverted(x) if back else x for x in (twin.options, twin.weights))
    config = {
        options.get(option, option): _translated_value(record, twin, option, value, target)
        for option, value in _meaningful(record, twin, layer_class, options).items()
    }
    if back:
        config |= {option: form(config[option]) for option, form in twin.to_keras.items()}
    else:
        config |= twin.only
    renamed = {
        weights.get(name, name): value
        for name, value in record.weights.items()
        if not is_seed(name)
    }
    return replace(record, layer_class=layer_class, config=config, weights=renamed)


def _class_in(target: ModuleType, name: str) -> type:
    """The class of layers that the bridge makes in the Keras `target`."""
    if name == "BatchNormalization" and target is not keras:
        from keras_kd.compression.bridge.opaque import BatchNormalization

        return BatchNormalization
    return getattr(target.layers, name)


def _meaningful(
    record: LayerRecord, twin: Twin, layer_class: type, names: Mapping[str, str]
) -> dict[str, Any]:
    """The options that the other Keras' class has too."""
    accepted = {*_parameters(layer_class), *twin.hidden}
    defaults = _parameters(record.layer_class)
    config = {}
    for option, value in record.config.items():
        if option.endswith("_initializer") or option in twin.only:
            continue
        if names.get(option, option) in accepted:
            config[option] = value
        elif option not in _WITHOUT_EFFECT.split() and not _is_off(option, value, defaults):
            raise problem(
                f"layer {record.name!r} ({record.layer_class.__name__}) with"
                f" {option}={short(value)}",
                "options that both versions of Keras have",
                f"build the layer without `{option}`",
                kind=NoCounterpart,
            )
    return config


def _translated_value(
    record: LayerRecord, twin: Twin, option: str, value: Any, target: ModuleType
) -> Any:
    if option in twin.made_of and value is not None:
        return _translated_part(record, value, target)
    if option == "dtype":
        return _policy_name(record, value["config"] if isinstance(value, Mapping) else value)
    if option.endswith("activation"):
        if value is None:
            return None
        return _known(activations.in_other_keras(value, target), record, option, value)
    for suffix, module in (("_regularizer", "regularizers"), ("_constraint", "constraints")):
        if option.endswith(suffix) and value is not None:
            if callable(value) or "WeightFunction" in value["class_name"]:
                return _weight_function(value, target)
            made = getattr(getattr(target, module), value["class_name"], None)
            return _known(made, record, option, value)(**value["config"])
    return _plain(value)


def _weight_function(value: Any, target: ModuleType) -> Any:
    """A user's own regularizer or constraint, in the form that each Keras saves."""
    from keras_kd.compression.bridge.opaque import WeightFunction

    if target is keras:
        return value if callable(value) else function_from_text(value["config"]["function"])
    return WeightFunction(function_to_text(value))


def _translated_part(record: LayerRecord, value: Any, target: ModuleType) -> Any:
    """The record of a layer inside, which is in the config as Keras serializes it."""
    if isinstance(value, (list, tuple)):
        return [_translated_part(record, item, target) for item in value]
    try:
        if target is keras:
            # The code in it is of a living layer.
            with tf_keras().src.saving.serialization_lib.SafeModeScope(False):
                layer = tf_keras().layers.deserialize(value)
        else:
            layer = keras.saving.deserialize_keras_object(value)
    except Exception as error:
        # A user's own from_config can raise anything.
        raise NoCounterpart(str(error)) from error
    part = _translate(record_of(layer), target)
    # Bidirectional puts these in front of the names of its layers.
    for prefix in ("forward_", "backward_"):
        part = replace(part, name=part.name.removeprefix(prefix))
    return part


def _known(made: Any, record: LayerRecord, option: str, value: Any) -> Any:
    if made is None:
        raise problem(
            f"layer {record.name!r} with {option}={short(value)}",
            f"one of Keras' own for `{option}`",
            "put your own function into a separate layer, outside the student",
            kind=NoCounterpart,
        )
    return made


def _policy_name(record: LayerRecord, policy: Any) -> str:
    """The dtype policy as both Kerases call it."""
    name = policy["name"] if isinstance(policy, Mapping) and "name" in policy else policy
    name = getattr(name, "name", name)
    if not isinstance(name, str) or "_from_" in name:
        raise problem(
            f"layer {record.name!r}, which is quantized already (dtype {short(policy)})",
            "a student in floating point",
            "take the student as it was before `quantize`",
        )
    return name


def _holds_records(value: Any) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(item, LayerRecord) for item in items)


def _made(value: Any) -> Any:
    return make_layer(value) if isinstance(value, LayerRecord) else [_made(item) for item in value]


def _parameters(layer_class: type) -> dict[str, Any]:
    """Constructor arguments of a layer class, and of its bases if it passes the rest on."""
    found: dict[str, Any] = {}
    for base in layer_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        found = {parameter.name: parameter.default for parameter in named} | found
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _plain(value: Any) -> Any:
    """Arrays as Python numbers; 0.3 that was stored in float32 is 0.3 again."""
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__"):
        value = np.asarray(keras.saving.deserialize_keras_object(value)).tolist()
    if isinstance(value, (np.ndarray, np.generic)) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


def _is_off(option: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether the option changes nothing, so that a layer without it computes the same."""
    default = _STANDARD.get(option, defaults.get(option, False))
    return value is None or bool(np.all(value == default))


def _inverted(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}
