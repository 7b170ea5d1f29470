"""Reading a pruned student back, to train it on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from keras_kd._checks import problem
from keras_kd._keras import tf_keras


def load_pruned(path: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Read a pruned student that its own `save` has written, with its masks and its schedule.

    Args:
        path: a `.keras` or `.h5` file, or a directory. It may hold code that runs while it is read:
            open only files from a source that you trust.
        custom_objects: classes and functions of your own by name.

    Returns:
        A `tf_keras.Model` that trains on where it was, with `training_callbacks` of its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no pruned student in the file.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            problem(f"path={str(path)!r}, where there is nothing", "a file", "correct the path")
        )
    # Their classes are known to tf_keras once they are imported.
    from keras_kd.compression.bridge import opaque  # noqa: F401
    from keras_kd.compression.pruning import _wrapper  # noqa: F401

    with tf_keras().saving.custom_object_scope(custom_objects or {}):
        loaded = tf_keras().models.load_model(path)
    return with_callbacks(loaded)


def with_callbacks(pruned: Any) -> Any:
    """The student, with what makes the callbacks that it needs while it trains.

    Raises:
        ValueError: if it has no pruned layer.
    """
    from keras_kd.compression.pruning import _callback, _wrapper

    wrappers = [layer for layer in pruned.layers if isinstance(layer, _wrapper.PruneLowMagnitude)]
    if not wrappers:
        raise ValueError(
            problem(
                f"model {pruned.name!r} without a pruned layer",
                "what `save` of a student of `prune` has written",
                "read other models with tf_keras.models.load_model",
            )
        )
    pruned.training_callbacks = lambda: [_callback.PruningCallback(wrappers)]
    return pruned
