"""Examples with and without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd import _replicas
from keras_kd._checks import check_integer, problem


class Labels:
    """Distinguishes labels from their substitutes.

    Args:
        missing: the integer that represents a label that is not known, such as -1, which also makes
            NaN represent one among floats; `None` where every example has a label.

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
            outputs: the student's outputs, by which classes and positions among labels differ.
        """
        return self._divided(y, sample_weight, outputs, _scaled_to_mean_1)

    def for_metrics(self, y: Any, sample_weight: Any, outputs: Any) -> tuple[Any, Any]:
        """Labels, and weights with which metrics see the labeled examples only."""
        return self._divided(y, sample_weight, outputs, lambda known: known)

    def weighed(
        self, y: Any, sample_weight: Any, output: Any, class_weight: Mapping[int, float]
    ) -> Any:
        """Weights of examples by their class; what has no label, or a class without one, has 1.

        Args:
            y: labels of one output.
            sample_weight: what else the examples weigh, or `None`.
            output: the student's output.
            class_weight: weights by class.

        Raises:
            ValueError: if there are several outputs.
        """
        if keras.tree.is_nested(y) or keras.tree.is_nested(output):
            raise problem(
                "class_weight for a student of several outputs",
                "a student of one output, as in Keras",
                "give sample_weight, one for each output",
            )
        known = self._known(y, output)
        labels = ops.convert_to_tensor(y)
        if len(labels.shape) > len(known.shape):
            is_column = labels.shape[-1] == 1
            labels = ops.squeeze(labels, -1) if is_column else ops.argmax(labels, axis=-1)
        # NaN, which represents a missing label among floats, is no number of a class.
        labels = ops.cast(ops.where(known > 0, labels, ops.zeros_like(labels)), "int32")
        table = np.ones(max(class_weight) + 1, dtype="float32")
        table[list(class_weight)] = list(class_weight.values())
        index = ops.minimum(labels, len(table) - 1)
        has_weight = ops.logical_and(known > 0, index == labels)
        weights = ops.where(has_weight, ops.take(table, index), ops.ones_like(known))
        return weights if sample_weight is None else _product(weights, sample_weight)

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
    labeled = ops.sum(known)
    if _replicas.number() > 1:
        count, labeled = ops.unstack(_replicas.total(ops.stack([count, labeled])))
    return known * ops.divide_no_nan(count, labeled)


def _product(known: Any, weight: Any) -> Any:
    weight = ops.cast(ops.convert_to_tensor(weight), known.dtype)
    while len(weight.shape) > len(known.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < len(known.shape):
        weight = ops.expand_dims(weight, axis=-1)
    return known * weight


def _is_float(labels: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(labels.dtype)
