"""From layer names to what these layers say, in the same forward pass as the model's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

from keras_kd import _keras
from keras_kd._checks import problem


class Tapped(NamedTuple):
    """What one forward pass gave.

    Attributes:
        outputs: the model's outputs, in the model's own structure.
        features: the outputs of the named layers.
    """

    outputs: Any
    features: dict[str, Any]


class Tap:
    """Calls a model and returns the outputs of named layers with its own, from one forward pass.

    Args:
        model: a model of either Keras, with a graph or subclassed.
        layer_names: the layers to read, see `find_layer`.

    Raises:
        ValueError: if a layer does not exist.
    """

    def __init__(self, model: Any, layer_names: Sequence[str] = ()) -> None:
        self.model = model
        self.layers = {name: find_layer(model, name) for name in dict.fromkeys(layer_names)}

    def __call__(self, inputs: Any, training: bool) -> Tapped:
        """One forward pass.

        Raises:
            ValueError: if a named layer was not called exactly once.
        """
        if not self.layers:
            return Tapped(_single_output(self.model(inputs, training=training)), {})
        with _listening(self.model, self.layers) as passes:
            outputs = self.model(inputs, training=training)
        # A model that was not built yet has been called once more, to build it.
        features = {name: self._single(name, said) for name, said in passes[-1].items()}
        return Tapped(_single_output(outputs), features)

    def shapes(self) -> Tapped | None:
        """Outputs and features as tensors without values; `None` where the model cannot tell."""
        if getattr(self.model, "inputs", None) is not None:
            outputs = _single_output(_keras.symbolic_outputs(self.model))
            return Tapped(outputs, {name: layer.output for name, layer in self.layers.items()})
        with _listening(self.model, self.layers) as passes:
            outputs = _keras.output_specs(self.model)
        if outputs is None:
            return None
        features = {
            name: _common_shape([self._single(name, one[name]) for one in passes])
            for name in self.layers
        }
        return Tapped(_single_output(outputs), features)

    def _single(self, name: str, said: list[Any]) -> Any:
        if len(said) == 1:
            return said[0]
        raise ValueError(
            problem(
                f"the layer {name!r} of model {self.model.name!r}, which was called {len(said)} "
                "times in one forward pass",
                "a layer that is called once",
                "name a layer that each input passes once, for instance the one behind it",
            )
        )


def _single_output(outputs: Any) -> Any:
    """The outputs; a list of one, as models in files of Keras 2 have it, is that one."""
    is_one = isinstance(outputs, list | tuple) and len(outputs) == 1
    return outputs[0] if is_one else outputs


@contextmanager
def _listening(model: Any, layers: dict[str, Any]) -> Iterator[list[dict[str, list[Any]]]]:
    """While this is open, note what the layers return, by name, anew for each call of the model.

    A model with more outputs would do for graphs, but not for layers of nested models, nor for
    subclassed models, and building it would leave its traces in the user's model.
    """
    passes: list[dict[str, list[Any]]] = []

    def counting(call: Any) -> Any:
        def counted_call(*args: Any, **kwargs: Any) -> Any:
            passes.append({name: [] for name in layers})
            return call(*args, **kwargs)

        return counted_call

    def noting(call: Any, name: str) -> Any:
        def noted_call(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            passes[-1][name].append(result)
            return result

        return noted_call

    originals = [(layer, vars(layer).get("call")) for layer in [model, *layers.values()]]
    try:
        # Past Keras' own __setattr__, for which this would be a part of the layer.
        object.__setattr__(model, "call", counting(model.call))
        for name, layer in layers.items():
            object.__setattr__(layer, "call", noting(layer.call, name))
        yield passes
    finally:
        for layer, call in originals:
            if call is not None:
                object.__setattr__(layer, "call", call)
            elif "call" in vars(layer):
                object.__delattr__(layer, "call")


def _common_shape(tensors: list[Any]) -> keras.KerasTensor:
    """The shape of tensors that Keras made from inputs of several sizes, to see which may vary."""
    sizes = zip(*(tensor.shape for tensor in tensors), strict=True)
    return keras.KerasTensor([size[0] if len(set(size)) == 1 else None for size in sizes])


def find_layer(model: Any, name: str) -> Any:
    """The layer of `model` called `name`, also where a wrapper or the bridge renamed it.

    "backbone/block3" is the layer "block3" of the nested model "backbone"; where the bridge has
    flattened the model, the layer that became of it.

    Raises:
        ValueError: if there is none; the message lists the layers.
    """
    layer = _find(model, name)
    if layer is not None:
        return layer
    raise ValueError(
        problem(
            f"layer name {name!r} for model {model.name!r}",
            f"one of its layers: {', '.join(_paths(model))}",
            "correct the name or give the layer that name",
        )
    )


def _find(container: Any, name: str) -> Any:
    layers = _inner_layers(container)
    first, _, rest = name.partition("/")
    for candidate in dict.fromkeys([name, first]):
        exact = [layer for layer in layers if layer.name == candidate]
        renamed = [layer for layer in layers if _keras.original_name(layer.name) == candidate]
        found = exact or (renamed if len(renamed) == 1 else [])
        if found and candidate == name:
            return found[0]
        if found:
            return _find(found[0], rest)
    if not rest or any(_keras.is_model(layer) for layer in layers):
        return None
    # The bridge flattens nested models: a layer keeps its name, or gets the model's in front.
    return _find(container, f"{first}_{rest}") or _find(container, rest)


def _inner_layers(container: Any) -> list[Any]:
    """The layers right inside a model, or inside a layer made of others."""
    layers = getattr(container, "layers", None)
    if layers is None:
        layers = container._flatten_layers(recursive=False, include_self=False)
    return list(layers)


def _paths(container: Any, prefix: str = "") -> list[str]:
    paths = []
    for layer in _inner_layers(container):
        path = prefix + _keras.original_name(layer.name)
        paths.append(path)
        if _keras.is_model(layer):
            paths += _paths(layer, f"{path}/")
    return paths
