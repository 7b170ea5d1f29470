"""What a student does to its input before it begins to compute: Rescaling and Normalization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_kd._keras import is_model

_SCALING = ("Rescaling", "Normalization")
# What may stand before them: it changes places or adds noise, not the scale.
_WITHOUT_SCALE = (
    "AugMix",
    "AutoContrast",
    "CenterCrop",
    "Cropping2D",
    "Dropout",
    "GaussianNoise",
    "InputLayer",
    "Permute",
    "QuantizeLayer",
    "Reshape",
    "Resizing",
    "ZeroPadding2D",
)


def first_scaling(student: Any) -> Any:
    """The Rescaling or Normalization that every input goes through first; None if there is none.

    Args:
        student: a model of either Keras, also one with preprocessing in a nested model.
    """
    for layer in _in_order(student):
        kind = type(layer).__name__
        if kind in _SCALING:
            return layer
        if kind not in _WITHOUT_SCALE and not kind.startswith("Random"):
            return None
    return None


def scaled_by(layer: Any, values: np.ndarray) -> np.ndarray:
    """What a layer that `first_scaling` found makes of values."""
    return np.asarray(layer(values), dtype="float32")


def _in_order(model: Any) -> Iterator[Any]:
    """The layers of a graph, those of nested and wrapped ones in place of what holds them."""
    for layer in model.layers:
        wrapped = getattr(layer, "layer", None)
        if is_model(layer):
            yield from _in_order(layer)
        else:
            yield layer if wrapped is None else wrapped
