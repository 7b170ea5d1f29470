"""Agreement of student and teacher as a Keras metric."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_kd")
class Agreement(keras.metrics.Mean):
    """The share of examples (or pixels, or words) for which two models choose the same class.

    Among the metrics of `compile` of a `keras_kd.Distiller` it compares the student's outputs with
    the teacher's, in training and in `evaluate`; the progress bar and the logs show it. Of several
    outputs it is the mean. Every example counts once, also with sample weights.

    Args:
        name: in the logs.
        dtype: of the metric.

    Example:
        ```python
        metrics = ["accuracy", keras_kd.metrics.Agreement()]
        distiller.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
        ```
    """

    def __init__(self, name: str = "agreement", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self._direction = "up"

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: the logits or probabilities of one model, shape `(batch, ..., classes)`; with
                one class a logit, whose sign decides.
            y_pred: those of the other, in the same shape.
            sample_weight: weights of shape `(batch, ...)`.

        Raises:
            ValueError: if the shapes differ.
        """
        super().update_state(choices(y_true) == choices(y_pred), sample_weight)


def choices(outputs: Any) -> Any:
    """The class that each row of logits chooses, integers of shape `(batch, ...)`."""
    outputs = ops.convert_to_tensor(outputs)
    if outputs.shape[-1] == 1:
        return ops.cast(outputs[..., 0] > 0, "int32")
    return ops.cast(ops.argmax(outputs, axis=-1), "int32")
