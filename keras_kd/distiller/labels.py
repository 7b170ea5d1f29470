"""Which examples have a label."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_integer


class Labels:
    """Tells labels from what stands in their place.

    Args:
        missing: the integer that stands for a label that is not known, such as -1, which also makes
            NaN stand for one among floats; `None` where every example has a label.

    Raises:
        TypeError: if it is neither an integer nor `None`.
    """

    def __init__(self, missing: int | None = None) -> None:
        if missing is not None:
            fix = "pass missing_label=-1, as keras_kd.data.mix uses it, or None"
            missing = check_integer("missing_label", missing, fix=fix)
        self.missing = missing

    def for_loss(self, y: Any, sample_weight: Any, outputs: Any) -> tuple[Any, Any]:
        """Labels, and weights with which Keras' mean over all examples is one over the labeled.

        Args:
            y: labels of one output, or the structure of the outputs.
            sample_weight: weights of the examples, or `None`.
            outputs: the student's outputs, which tell classes from positions among labels.
        """
        return self._divided(y, sample_weight, outputs, _scaled_to_mean_1)

    def for_metrics(self, y: Any, sample_weight: Any, outputs: Any) -> tuple[Any, Any]:
        """Labels, and weights with which metrics see the labeled examples only."""
        return self._divided(y, sample_weight, outputs, lambda known: known)

    def _divided(self, y: Any, sample_weight: Any, outputs: Any, scaled: Any) -> tuple[Any, Any]:
        if self.missing is None:
            return y, sample_weight
        weights = keras.tree.map_structure(
            lambda labels, output: scaled(self._known(labels, output)), y, outputs
        )
        if sample_weight is not None:
            shared = not keras.tree.is_nested(sample_weight)
            given = (
                keras.tree.map_structure(lambda _: sample_weight, y) if shared else sample_weight
            )
            weights = keras.tree.map_structure(_product, weights, given)
        return keras.tree.map_structure(self._filled, y), weights

    def _filled(self, labels: Any) -> Any:
        """The labels, with 0 where there is none: NaN would survive a weight of 0."""
        return ops.where(self._is_label(labels), labels, ops.zeros_like(labels))

    def _known(self, labels: Any, output: Any) -> Any:
        """1 where there is a label, else 0: `(batch, ...)`, without an axis of classes."""
        known = self._is_label(labels)
        if len(known.shape) > 1 and (len(known.shape) == len(output.shape) or known.shape[-1] == 1):
            known = ops.all(known, axis=-1)
        return ops.cast(known, "float32")

    def _is_label(self, labels: Any) -> Any:
        return ops.isfinite(labels) if _is_float(labels) else ops.not_equal(labels, self.missing)


def _scaled_to_mean_1(known: Any) -> Any:
    count = ops.cast(ops.size(known), known.dtype)
    return known * ops.divide_no_nan(count, ops.sum(known))


def _product(known: Any, weight: Any) -> Any:
    weight = ops.cast(ops.convert_to_tensor(weight), known.dtype)
    while len(weight.shape) > len(known.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < len(known.shape):
        weight = ops.expand_dims(weight, axis=-1)
    return known * weight


def _is_float(labels: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(labels.dtype)
