"""Conversion of a compressed student to a plain Keras 3 model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_kd._keras import check_model, is_keras_model
from keras_kd.compression.bridge.rebuilding import to_keras
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.bridge.weights import named_weights
from keras_kd.compression.families import family_of, wrapper_modules


def strip(student: Any) -> keras.Model:
    """Make a plain Keras 3 model of a trained student.

    What pruning set to zero is zero, and weights that clustering made share a value have it; the
    rest are the trained float weights, bit for bit. Layers have their own names again; models that
    were nested stay flat. The result saves and loads without keras_kd and is not compiled.

    Args:
        student: what `prune`, `cluster`, `quantize_aware` or `to_tf_keras` returned, trained or
            not. A Keras 3 model is returned unchanged.

    Raises:
        ValueError: if a layer has no counterpart in Keras 3; the message names it.
    """
    check_model("student", student)
    if is_keras_model(student):
        return student
    return to_keras(student, dismantle)


def dismantle(layer: Any) -> Sequence[LayerRecord]:
    """The plain layers inside a layer of TF-MOT, or the layer itself."""
    if family_of(layer) is not None:
        for module in wrapper_modules():
            records = module.dismantle(layer)
            if records is not None:
                return records
    return [record_of(layer)]


def unwrapped(layer: Any) -> tuple[Any, Mapping[str, Any]]:
    """The layer inside a layer of TF-MOT, or the layer itself; and its weights after `strip`."""
    if family_of(layer) is None or not hasattr(layer, "layer"):
        return layer, named_weights(layer)
    [record] = dismantle(layer)
    return layer.layer, record.weights
