"""The best student of a training, saved while it is trained."""

from __future__ import annotations

import os
from typing import Any

import keras

from keras_kd._files import replacing


class StudentCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the student while a `Distiller` trains it: `ModelCheckpoint` for the student alone.

    The files need neither the Distiller nor the teacher. Read those of a Keras 3 student with
    `keras.models.load_model`, those of a tf_keras student (pruned, clustered or quantization-aware)
    with `keras_kd.compression.load`, after which it can train on, be stripped or be converted. In
    the `fit` of a student itself it does what `ModelCheckpoint` does.

    A model's file is replaced only when the new one is complete. The student's optimizer belongs to
    the Distiller and is not saved; to continue an interrupted training, use
    `keras_kd.callbacks.ResumeTraining`.

    A pruned student reaches its sparsity at the end of its schedule. The best one before that may
    be less sparse: monitor from there on, or save the last one.

    Args:
        filepath: where to save, ending in `.keras`, or `.weights.h5` with `save_weights_only=True`;
            it can contain `{epoch}` and the names of logs.
        **options: `monitor`, `save_best_only`, `save_weights_only`, `mode`, `save_freq`, `verbose`
            and `initial_value_threshold`, as for `keras.callbacks.ModelCheckpoint`.

    Raises:
        ValueError: if `filepath` has another ending.

    Example:
        ```python
        best = keras_kd.callbacks.StudentCheckpoint(
            "best.keras", monitor="val_accuracy", save_best_only=True
        )
        distiller.fit(x_train, y_train, validation_data=(x_val, y_val), callbacks=[best])
        student = keras.models.load_model("best.keras")
        ```
    """

    def __init__(self, filepath: str | os.PathLike, **options: Any) -> None:
        super().__init__(filepath, **options)

    def set_model(self, model: Any) -> None:
        """Save the student of `model`, if it has one."""
        super().set_model(_Student(model) if hasattr(model, "student") else model)


class _Student:
    """A Distiller to `ModelCheckpoint`: its metrics, and its student for what is saved."""

    def __init__(self, distiller: Any) -> None:
        self._distiller = distiller

    @property
    def metrics(self) -> list[Any]:
        """The Distiller's: a student of its own has none."""
        return self._distiller.metrics

    def save(self, filepath: str, overwrite: bool = True) -> None:
        """Save the whole student."""
        with replacing(filepath) as temporary:
            self._distiller.student.save(temporary, overwrite=overwrite)

    def save_weights(self, filepath: str, overwrite: bool = True) -> None:
        """Save the student's weights."""
        self._distiller.student.save_weights(filepath, overwrite=overwrite)
