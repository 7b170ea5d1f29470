"""Reading a compressed student back, to train it on or to convert it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from keras_kd._checks import one_line, problem
from keras_kd._keras import tf_keras


def load(path: str | os.PathLike, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Read a student of `prune`, `cluster`, `quantize_aware` or `to_tf_keras` that was saved.

    Masks, schedules, shared values, ranges and what is kept of earlier compressions are as they
    were when the student's own `save` has written the file.

    Args:
        path: a `.keras` file, or an `.h5` file if the student has no activation that only Keras 3
            knows. It may hold code that runs while it is read: open only files from a source that
            you trust.
        custom_objects: classes and functions of your own by name.

    Returns:
        A `tf_keras.Model` that trains on where it was, with `training_callbacks` if it is pruned.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.exists(path):
        raise FileNotFoundError(
            problem(
                f"the path {str(path)!r}, where there is nothing",
                "the file of a saved student",
                "correct the path",
            )
        )
    # Importing them lets tf_keras load files with their layers.
    from keras_kd.compression.bridge import activations
    from keras_kd.compression.bridge.opaque import OpaqueLayer
    from keras_kd.compression.clustering import _wrapper as clustering  # noqa: F401
    from keras_kd.compression.pruning._callback import set_callbacks
    from keras_kd.compression.quantization import _wrapper as quantization  # noqa: F401

    activations.register_all()
    # In a wrapper in a `.h5` file a layer of the bridge has no package in front of its name.
    known = {"OpaqueLayer": OpaqueLayer, **(custom_objects or {})}
    try:
        with tf_keras().saving.custom_object_scope(known):
            student = tf_keras().models.load_model(path)
    except Exception as error:
        # Anything may be in a file.
        raise ValueError(
            problem(
                f"{str(path)!r}, which cannot be read ({one_line(error)[:300]})",
                "what `save` of a tf_keras student has written",
                "give classes of your own as custom_objects; read Keras 3 models with "
                "keras.models.load_model",
            )
        ) from error
    set_callbacks(student)
    return student
