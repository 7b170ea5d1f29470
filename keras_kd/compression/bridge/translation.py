"""What a layer is called, and what its options and weights are called, in each Keras.

A layer that both Kerases know needs no more than a row in `ROWS`; a row says only what differs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import tf_keras


@dataclass(frozen=True)
class LayerRecord:
    """A layer taken apart: enough to make it again.

    `config` is the layer's own `get_config()`; `weights` maps names such as `"kernel"` to values.
    """

    layer_class: type
    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """How one class of layers differs between Keras 3 and tf_keras; both know it by `name`.

    `options` and `weights` map Keras 3 names to tf_keras names; `only_tf_keras` are arguments of
    the tf_keras layer that make it compute what the Keras 3 layer computes; `finish` is called on
    a layer of either Keras once its weights are there. `to_keras` turns the values of options
    that Keras 3 wants in another form.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    only_tf_keras: Mapping[str, Any] = field(default_factory=dict)
    to_keras: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    finish: Callable[[Any], None] = lambda layer: None


_ALIKE = """
    Activation ActivityRegularization Add AlphaDropout Average AveragePooling1D AveragePooling2D
    AveragePooling3D Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose Cropping1D Cropping2D Cropping3D Dense Dot Dropout ELU Embedding Flatten
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization Identity LayerNormalization Masking MaxPooling1D MaxPooling2D
    MaxPooling3D Maximum Minimum Multiply PReLU Permute ReLU RepeatVector Rescaling Reshape
    SeparableConv1D SeparableConv2D Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
    Subtract UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
"""

ROWS = {
    row.name: row
    for row in (
        *map(Row, _ALIKE.split()),
        # The fused kernel's moving variance is N / (N - 1) times that of Keras 3.
        Row(
            "BatchNormalization",
            only_tf_keras={"fused": False},
            to_keras={"axis": lambda axes: np.ravel(axes).item()},
        ),
        Row("DepthwiseConv1D", weights={"kernel": "depthwise_kernel"}),
        Row("DepthwiseConv2D", weights={"kernel": "depthwise_kernel"}),
        Row("LeakyReLU", options={"negative_slope": "alpha"}),
        Row("Normalization", finish=lambda layer: layer.finalize_state()),
    )
}

# What an option that only one Keras has must be, where its default says "as configured".
_STANDARD = {"data_format": "channels_last"}
# Weights are copied and data are fixed-size, so these have no effect on the rebuilt layer.
_WITHOUT_EFFECT = frozenset({"batch_input_shape", "input_length", "renorm_momentum"})
# The same function under the name by which tf_keras, and TF-MOT's list of activations, know it.
_ACTIVATION_NAMES = {"silu": "swish"}
# tf_keras has a hard_sigmoid of another slope.
_OTHER_ACTIVATIONS = frozenset({"hard_sigmoid"})
# What tf_keras does not know is registered with it under this name.
_PACKAGE = "keras_kd"


def record_of(layer: Any) -> LayerRecord:
    """Take apart a plain layer of either Keras.

    Raises:
        ValueError: if it is an operation such as `x + y` or `keras.ops.add`, not a layer.
    """
    if isinstance(layer, keras.Operation) and not isinstance(layer, keras.layers.Layer):
        raise ValueError(
            problem(
                f"operation {layer.name!r} ({type(layer).__name__}) between layers",
                "a model made of layers only",
                "use the layer instead, such as keras.layers.Add() for `x + y`",
            )
        )
    weights = {weight_name(weight): np.asarray(weight) for weight in layer.weights}
    return LayerRecord(type(layer), layer.name, layer.get_config(), weights)


def weight_name(weight: Any) -> str:
    """`"kernel"` for a variable that Keras 3 calls `kernel` and tf_keras `block/conv/kernel:0`."""
    return weight.name.split("/")[-1].split(":")[0]


def to_tf_keras_record(record: LayerRecord) -> LayerRecord:
    """The record of the tf_keras layer that stands for a Keras 3 layer.

    Raises:
        ValueError: if tf_keras has no such layer, or not with these options; names the layer.
    """
    row = _row(record, keras)
    return _translate(record, tf_keras(), row.options, row.weights)


def to_keras_record(record: LayerRecord) -> LayerRecord:
    """The record of the Keras 3 layer that stands for a tf_keras layer.

    Raises:
        ValueError: if Keras 3 has no such layer, or not with these options; names the layer.
    """
    row = _row(record, tf_keras())
    translated = _translate(record, keras, _inverted(row.options), _inverted(row.weights))
    changed = {option: form(translated.config[option]) for option, form in row.to_keras.items()}
    return replace(translated, config={**translated.config, **changed})


def make_layer(record: LayerRecord) -> Any:
    """The unbuilt layer of a record."""
    row = ROWS.get(record.layer_class.__name__)
    extra = row.only_tf_keras if row and _is_tf_keras(record.layer_class) else {}
    return record.layer_class.from_config({**record.config, **extra, "name": record.name})


def set_weights(layer: Any, record: LayerRecord) -> None:
    """Give a built layer its weights, paired by name.

    Raises:
        ValueError: if the layer's weights have other names or shapes; names the layer.
    """
    expected = {weight_name(weight): tuple(weight.shape) for weight in layer.weights}
    received = {name: tuple(value.shape) for name, value in record.weights.items()}
    if expected != received:
        raise ValueError(
            problem(
                f"layer {record.name!r} with the weights {received}",
                f"the weights {expected} of a {type(layer).__name__}",
                "leave this layer out of the student",
            )
        )
    for weight in layer.weights:
        weight.assign(record.weights[weight_name(weight)])
    if record.weights and type(layer).__name__ in ROWS:
        ROWS[type(layer).__name__].finish(layer)


def _row(record: LayerRecord, source: ModuleType) -> Row:
    name = record.layer_class.__name__
    if name in ROWS and getattr(source.layers, name, None) is record.layer_class:
        return ROWS[name]
    raise ValueError(
        problem(
            f"layer {record.name!r} of class {record.layer_class.__module__}.{name}",
            "layers that both Keras 3 and tf_keras have: " + ", ".join(sorted(ROWS)),
            "replace the layer by some of these, or leave it out of the student",
        )
    )


def _translate(
    record: LayerRecord,
    target: ModuleType,
    options: Mapping[str, str],
    weights: Mapping[str, str],
) -> LayerRecord:
    layer_class = getattr(target.layers, record.layer_class.__name__)
    accepted = _parameters(layer_class)
    defaults = _parameters(record.layer_class)
    config = {}
    for option, value in record.config.items():
        if option.endswith("_initializer"):
            continue
        renamed = options.get(option, option)
        if renamed in accepted:
            config[renamed] = _translated_value(record, option, value, target)
        elif option not in _WITHOUT_EFFECT and not _is_off(option, value, defaults):
            raise ValueError(
                problem(
                    f"layer {record.name!r} ({record.layer_class.__name__}) with"
                    f" {option}={value!r}",
                    f"options that {target.__name__} has too",
                    f"build the layer without `{option}`",
                )
            )
    renamed_weights = {weights.get(name, name): value for name, value in record.weights.items()}
    return replace(record, layer_class=layer_class, config=config, weights=renamed_weights)


def _translated_value(record: LayerRecord, option: str, value: Any, target: ModuleType) -> Any:
    if option == "dtype":
        return value["config"]["name"] if isinstance(value, Mapping) else value
    if option == "activation":
        return _activation(record, value, target)
    for suffix, module in (("_regularizer", "regularizers"), ("_constraint", "constraints")):
        if option.endswith(suffix) and value is not None:
            made = getattr(getattr(target, module), value["class_name"], None)
            if made is None:
                raise _unknown_object(record, option, value["class_name"])
            return made(**value["config"])
    return _plain(value)


def _activation(record: LayerRecord, value: Any, target: ModuleType) -> Any:
    if value is None:
        return None
    name = value if isinstance(value, str) else value.get("config")
    if not isinstance(name, str):
        raise _unknown_object(record, "activation", value)
    name = name.removeprefix(_PACKAGE + ">")
    if target is keras:
        name = {old: new for new, old in _ACTIVATION_NAMES.items()}.get(name, name)
        function = getattr(keras.activations, name, None)
    else:
        name = _ACTIVATION_NAMES.get(name, name)
        known = name not in _OTHER_ACTIVATIONS
        function = getattr(target.activations, name, None) if known else None
        function = function or _keras_activation_for_tf_keras(name)
    if function is None:
        raise _unknown_object(record, "activation", value)
    return function


def _keras_activation_for_tf_keras(name: str) -> Callable[..., Any] | None:
    """Keras 3's own function, under a name with which tf_keras can save and load it."""
    saving = tf_keras().saving
    registered = saving.get_registered_object(f"{_PACKAGE}>{name}")
    function = getattr(keras.activations, name, None)
    if registered is not None or function is None:
        return registered

    def activation(x: Any) -> Any:
        return function(x)

    activation.__name__ = name
    return saving.register_keras_serializable(_PACKAGE, name)(activation)


def _unknown_object(record: LayerRecord, option: str, value: Any) -> ValueError:
    return ValueError(
        problem(
            f"layer {record.name!r} with {option}={value!r}",
            f"one of Keras' own for `{option}`",
            "put your own function into a layer of its own, outside the student",
        )
    )


def _parameters(layer_class: type) -> dict[str, Any]:
    """Constructor arguments of a layer class, and of its bases if it hands on the rest."""
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


def _is_tf_keras(layer_class: type) -> bool:
    return issubclass(layer_class, tf_keras().layers.Layer)
