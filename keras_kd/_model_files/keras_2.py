"""Configs of models in the `.h5` files of Keras 2, in the form in which Keras 3 reads them.

Keras 3 reads such files but refuses options that it no longer has, also where they are off, and
names with a slash; it counts the calls of nested models otherwise, and takes lists of one input or
output for their content.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

_MODELS = ("Functional", "Model", "Sequential")
# Without effect where Keras 3 does not take them: shapes are set when a layer is called, and layers
# without `trainable` have no weights.
_WITHOUT_EFFECT = (
    "implementation",
    "key_shape",
    "query_shape",
    "rng_type",
    "softmax_robust_masking",
    "trainable",
    "value_shape",
)
# Options that only Keras 2 has, and the value by which the layer computes as if it had not.
_OFF = {"groups": 1}
# Keras 3 reads these although no layer names them.
_OF_ALL = ("batch_input_shape", "dtype", "input_dim", "input_length", "input_shape", "name")
# They take a list of a sequence and states in Keras 2.
_RECURRENT = frozenset(
    ("Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN")
)
# Of Keras 2 and nothing else, so that no code of the user's can bring them back.
ONLY_IN_KERAS_2 = (
    "LocallyConnected1D",
    "LocallyConnected2D",
    "SlicingOpLambda",
    "TFOpLambda",
    "TensorFlowOpLayer",
    "ThresholdedReLU",
)


def modernized(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model or layer of Keras 2, as Keras 3 reads it.

    What both have stays unchanged, and so does what Keras 3 must refuse, such as
    `time_major=True`.

    Args:
        config: `class_name` and `config`, as in the attribute `model_config` of the file.
    """
    kind, own = config.get("class_name"), config.get("config")
    if kind in _MODELS and isinstance(own, list):
        # Keras before 2.2.3.
        own = {"name": "sequential", "layers": own}
    if not isinstance(own, Mapping):
        return dict(config)
    if kind in _MODELS and isinstance(own.get("layers"), list):
        kind = "Functional" if kind == "Model" else kind
        if kind == "Sequential":
            own = {**own, "layers": _with_input(own["layers"])}
        return {**config, "class_name": kind, "config": _model(own)}
    return {**config, "config": _layer(kind, own)}


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    tensors = _Tensors(config["layers"])
    changed = dict(config)
    if isinstance(config.get("name"), str):
        changed["name"] = config["name"].replace("/", "_")
    changed["layers"] = []
    for old in config["layers"]:
        layer = modernized(old)
        layer["config"] = {**layer["config"], "name": tensors.names[_name_of(old)]}
        if "name" in layer:
            layer["name"] = tensors.names[layer["name"]]
        if "inbound_nodes" in layer:
            kind = str(layer.get("class_name"))
            layer["inbound_nodes"] = [tensors.of_call(node, kind) for node in old["inbound_nodes"]]
        changed["layers"].append(layer)
    for ends in ("input_layers", "output_layers"):
        if ends in config:
            found = tensors.of_ends(config[ends])
            is_one = isinstance(found, list) and len(found) == 1 and isinstance(found[0], list)
            changed[ends] = found[0] if is_one else found
    return changed


def _with_input(layers: list[Any]) -> list[Any]:
    """The layers of a stack, behind the input that its first one represents before Keras 2.4."""
    shape = layers[0]["config"].get("batch_input_shape") if layers else None
    if shape is None or layers[0]["class_name"] == "InputLayer":
        return layers
    own = {"batch_input_shape": shape, "name": f"{_name_of(layers[0])}_input"}
    return [{"class_name": "InputLayer", "config": own}, *layers]


class _Tensors:
    """The tensors in a graph: in Keras 2 each is `[layer, number of the call, index]`."""

    def __init__(self, layers: list[Any]) -> None:
        self.names = _names_without_slash([_name_of(layer) for layer in layers])
        # A nested model with its own inputs has been called once for itself in Keras 2.
        nested = [layer for layer in layers if _is_called_for_itself(layer)]
        self._nested = {_name_of(layer): layer["class_name"] for layer in nested}

    def of_call(self, node: Any, kind: str) -> Any:
        """A call of a layer: `[[layer, call, index, options], ...]` in Keras 2."""
        if not isinstance(node, list) or not all(self._is_one(item) for item in node):
            return node
        options = next((item[3] for item in node if len(item) > 3), {})
        inputs = [self._counted(item[:3]) for item in node]
        named = _mapped(options, self._is_one, lambda item: _symbol(self._counted(item)))
        if kind in _RECURRENT and len(node) > 1:
            inputs, states = inputs[:1], inputs[1:]
            named = {name: value for name, value in named.items() if value is not None}
            named["initial_state"] = list(map(_symbol, states))
        if named == options:
            return [[*item, options] for item in inputs]
        first = list(map(_symbol, inputs))
        return {"args": [first if len(first) > 1 else first[0]], "kwargs": named}

    def of_ends(self, ends: Any) -> Any:
        """The inputs or outputs of the model; here Keras 3 counts nested graphs as Keras 2 does."""

        def renamed(item: list[Any]) -> list[Any]:
            is_graph = self._nested.get(item[0]) in ("Functional", "Model")
            name, call, index = self._counted(item)
            return [name, call + is_graph, index]

        return _mapped(ends, self._is_one, renamed)

    def _is_one(self, value: Any) -> bool:
        if not isinstance(value, list) or len(value) not in (3, 4):
            return False
        return isinstance(value[0], str) and value[0] in self.names and isinstance(value[1], int)

    def _counted(self, item: list[Any]) -> list[Any]:
        name, call, index = item[:3]
        return [self.names[name], call - (name in self._nested), index]


def _mapped(value: Any, is_leaf: Callable[[Any], bool], change: Callable[[Any], Any]) -> Any:
    """The same lists and dicts, with their leaves changed."""
    if is_leaf(value):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, is_leaf, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, is_leaf, change) for item in value]
    return value


def _symbol(tensor: list[Any]) -> dict[str, Any]:
    """A tensor as Keras 3 writes it; it looks at nothing but its history."""
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None], "dtype": "float32", "keras_history": tensor},
    }


def _layer(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    layer_class = getattr(keras.layers, str(kind), None)
    accepted = _parameters(layer_class) if isinstance(layer_class, type) else None
    changed = {}
    for option, value in config.items():
        if option == "batch_input_shape" and kind != "InputLayer":
            continue
        if accepted is not None and option not in accepted and _is_off(option, value):
            continue
        changed[option] = _value(option, value)
    if kind in ("GRU", "GRUCell"):
        # Before Keras 2.1 there was no other form.
        changed.setdefault("reset_after", False)
    if kind == "Attention" and config.get("score_mode") == "dot":
        # Its default, which Keras 3 takes for the name of a function in such files.
        del changed["score_mode"]
    return changed


def _value(option: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_value(option, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = value.get("config")
    if option == "dtype" and isinstance(inner, Mapping) and "name" in inner:
        return inner["name"]
    if option.endswith("_initializer") and isinstance(inner, Mapping):
        return {**value, "config": {key: inner[key] for key in inner if key != "dtype"}}
    # A layer inside a layer.
    return modernized(value) if "class_name" in value and "name" in (inner or {}) else value


def _is_off(option: str, value: Any) -> bool:
    is_off = value is None or value is False or (option in _OFF and value == _OFF[option])
    return is_off or option in _WITHOUT_EFFECT or option.endswith("_initializer")


def _parameters(layer_class: type) -> set[str]:
    """Constructor arguments of a layer class, and of its bases if it hands on the rest."""
    found: set[str] = set(_OF_ALL)
    for base in layer_class.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        found.update(parameters)
        if not any(each.kind == each.VAR_KEYWORD for each in parameters.values()):
            break
    return found


def _is_called_for_itself(layer: Mapping[str, Any]) -> bool:
    if layer.get("class_name") not in _MODELS or not isinstance(layer.get("config"), Mapping):
        return False
    layers = layer["config"].get("layers")
    if not layers:
        return False
    is_input = layers[0].get("class_name") == "InputLayer"
    return is_input or "batch_input_shape" in layers[0].get("config", ())


def _name_of(layer: Mapping[str, Any]) -> Any:
    own = layer.get("config")
    return layer.get("name", own.get("name") if isinstance(own, Mapping) else None)


def _names_without_slash(names: list[Any]) -> dict[Any, Any]:
    taken = {name for name in names if "/" not in str(name)}
    found = {name: name for name in taken}
    for name in names:
        if name not in found:
            free = base = name.replace("/", "_")
            while free in taken:
                free = f"{free}_" if free != base else f"{base}_1"
            taken.add(free)
            found[name] = free
    return found
