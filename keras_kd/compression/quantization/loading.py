"""Quantization-aware students from files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_kd._checks import problem
from keras_kd._keras import tf_keras


def load_quantization_aware(
    path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """Read a quantization-aware student that its own `save` has written.

    Args:
        path: a `.keras` file, or an `.h5` file if the student has no activation that only Keras 3
            knows. It may hold code that runs while it is read: open only files
            from a source that you trust.
        custom_objects: classes and functions of your own by name.

    Returns:
        A `tf_keras.Model` with its ranges, zeros and clusters, ready to train on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no quantization-aware student in it.
    """
    if not Path(path).exists():
        raise FileNotFoundError(problem(f"the path {str(path)!r}", "a saved student", "check it"))
    # Importing them lets tf_keras load files with these layers; in a wrapper in a `.h5` file a
    # layer of the bridge has no package in front of its name.
    from keras_kd.compression.bridge import activations
    from keras_kd.compression.bridge.opaque import OpaqueLayer
    from keras_kd.compression.quantization._wrapper import wrappers

    activations.register_all()
    known = {"OpaqueLayer": OpaqueLayer, **(custom_objects or {})}
    with tf_keras().saving.custom_object_scope(known):
        loaded = tf_keras().models.load_model(path)
    if not wrappers(loaded):
        raise ValueError(
            problem(
                f"model {loaded.name!r} without a quantized layer",
                "what `save` of a student of `quantize_aware` has written",
                "read other models with tf_keras.models.load_model",
            )
        )
    return loaded
