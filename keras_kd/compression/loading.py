"""Loading of a compressed student, for training or conversion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_kd._checks import one_line, problem
from keras_kd._keras import tf_keras
from keras_kd.compression.families import prepare_loaded, wrapper_modules


def load(
    path: str | os.PathLike,
    custom_objects: Mapping[str, Any] | None = None,
    *,
    safe_mode: bool = True,
) -> Any:
    """Read a student of `prune`, `cluster`, `quantize_aware` or `to_tf_keras` that was saved.

    Masks, schedules, shared values, ranges and what is kept of earlier compressions are as they
    were when the student's own `save` has written the file.

    Args:
        path: a `.keras` file, or an `.h5` file if the student has no activation that only Keras 3
            has. It may hold code that runs while it is read: open only files from a source that
            you trust.
        custom_objects: classes and functions of your own by name.
        safe_mode: whether to refuse Python lambdas in Keras 3 layers in the file, as Keras does.
            Students that were saved by this process have their own functions again in any case.

    Returns:
        A `tf_keras.Model` whose training can be resumed, with `training_callbacks` if it is pruned.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.exists(path):
        raise problem(
            f"the path {str(path)!r}, which does not exist",
            "the file of a saved student",
            "correct the path",
            kind=FileNotFoundError,
        )
    # Importing them lets tf_keras load files with their layers, and with losses of Keras 3.
    from keras_kd._translation import KerasSchedule, take_keras_3
    from keras_kd.compression.bridge import activations
    from keras_kd.compression.bridge.opaque import OpaqueLayer, WeightFunction

    wrapper_modules()
    activations.register_all()
    # In a `.h5` file what is in wrappers and optimizers has no package in front of its name.
    inner = (KerasSchedule, OpaqueLayer, WeightFunction)
    own = dict(custom_objects or {})
    known = {
        **{part.__name__: part for part in inner},
        **{f"{activations.PACKAGE}>{name}": item for name, item in own.items()},
        **own,
    }
    try:
        with (
            tf_keras().saving.custom_object_scope(known),
            keras.saving.custom_object_scope(own),
        ):
            student = tf_keras().models.load_model(path, safe_mode=safe_mode)
    except Exception as error:
        # Anything may be in a file.
        # The message begins with a config of thousands of characters.
        reason = one_line(error).rpartition("Exception encountered: ")[2]
        fix = (
            "give classes of your own as custom_objects; read Keras 3 models with "
            "keras.models.load_model"
        )
        if "Python lambda" in reason:
            fix = "pass safe_mode=False if you trust the file"
        elif "Unknown activation" in reason and Path(path).suffix != ".keras":
            fix = "save the student as .keras, which keeps activations that only Keras 3 has"
        raise problem(
            f"{str(path)!r}, which cannot be read ({reason[:300]})",
            "what `save` of a tf_keras student has written",
            fix,
        ) from error
    prepare_loaded(student)
    return take_keras_3(student)
