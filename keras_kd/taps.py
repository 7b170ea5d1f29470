"""From layer names to one model: its outputs and the named layers' outputs in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
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
        model: a model of either Keras; Functional or Sequential if layers are named.
        layer_names: the layers to read. A layer that TF-MOT has wrapped is found by the name it
            had before.

    Raises:
        ValueError: if a layer does not exist or the model has no graph to read it from.
    """

    def __init__(self, model: Any, layer_names: Sequence[str] = ()) -> None:
        self.model = model
        self.layer_names = tuple(dict.fromkeys(layer_names))
        self._extended = None
        if self.layer_names:
            if getattr(model, "inputs", None) is None:
                raise ValueError(
                    problem(
                        f"layer names {list(self.layer_names)} for {model.name!r}, a subclassed or "
                        "unbuilt model",
                        "a Functional or Sequential model that has been built, whose layers' "
                        "outputs can be read",
                        "rebuild it with keras.Model(inputs, outputs), or compare final outputs "
                        "only",
                    )
                )
            features = {name: find_layer(model, name).output for name in self.layer_names}
            keras_module = keras if _keras.is_keras_model(model) else _keras.tf_keras()
            self._extended = keras_module.Model(
                _keras.symbolic_inputs(model),
                {"outputs": _keras.symbolic_outputs(model), "features": features},
            )

    def __call__(self, inputs: Any, training: bool) -> Tapped:
        """One forward pass."""
        if self._extended is None:
            return Tapped(self.model(inputs, training=training), {})
        return Tapped(**self._extended(inputs, training=training))


def find_layer(model: Any, name: str) -> Any:
    """The layer of `model` called `name`, also where a wrapper or the bridge renamed it.

    Raises:
        ValueError: if there is none; the message lists the layers.
    """
    names = [layer.name for layer in model.layers]
    if name in names:
        return model.get_layer(name)
    renamed = [layer for layer in model.layers if _keras.original_name(layer.name) == name]
    if len(renamed) == 1:
        return renamed[0]
    raise ValueError(
        problem(
            f"layer name {name!r} for model {model.name!r}",
            f"one of its layers: {', '.join(names)}",
            "correct the name or give the layer that name",
        )
    )
