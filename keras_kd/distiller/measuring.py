"""Means of losses, and metrics, for the logs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import keras
from keras import ops

from keras_kd import _keras, _replicas
from keras_kd._checks import problem
from keras_kd._logits import recognise_logits
from keras_kd.distiller.assembly import Assembly
from keras_kd.distiller.matching import matched
from keras_kd.distiller.own_loss import own_metrics
from keras_kd.losses import SoftTargets
from keras_kd.losses.base import outputs_by_key
from keras_kd.metrics.agreement import Agreement

# Matches outputs as a loss on classes has them.
_ON_CLASSES = SoftTargets()


class Measuring(Assembly):
    """Means over examples of the losses, of each distillation loss, and metrics of `compile`."""

    def _begin_measuring(self) -> None:
        # Past the tracking of both versions of Keras: they belong to no weights or files.
        self._agreement = _keras.Untracked(None)
        self._term_means = _keras.Untracked(None)

    def _measured(self, metrics: Any, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `compile` for metrics: weighted ones where labels can be missing.

        What is measured on the teacher's outputs is left out: Keras has only labels for it.
        """
        listed = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
        compared = [metric for metric in listed if isinstance(metric, Agreement)]
        if compared:
            metrics = [metric for metric in listed if metric is not compared[0]]
        self._agreement.value = compared[0] if compared else None
        if self._labels.missing is None or metrics is None:
            return {**options, "metrics": metrics}
        weighted = options.get("weighted_metrics")
        if weighted is not None:
            raise problem(
                f"metrics and weighted_metrics with missing_label={self._labels.missing}",
                "one of them: with missing labels every metric is weighted",
                "give all of them as metrics",
            )
        return {**options, "weighted_metrics": metrics}

    def reset_metrics(self) -> None:
        """Start all means anew."""
        super().reset_metrics()
        for metric in self._own_metrics():
            metric.reset_state()

    def _own_metrics(self) -> list[Any]:
        """The metrics of the teacher's part, and those that the student's own loss updates."""
        agreement, means = self._agreement.value, self._term_means.value
        found = [] if agreement is None else [agreement]
        found += [] if means is None else means.values()
        return found + (own_metrics(self.student) if self._uses_own_loss else [])

    def show_terms(self) -> None:
        """Show the mean of each distillation loss, before its weight, in the logs from now on."""
        names = [f"{name}_loss" for name in self._objective.names]
        known = self._term_means.value
        if known is None or list(known) != names:
            mean = self._mean_of_keras()
            with self._scope_of_metrics():
                self._term_means.value = {name: mean(name=name) for name in names}
            self._forget_steps()

    def _scope_of_metrics(self) -> Any:
        """A context in which metrics are made."""
        return nullcontext()

    def _mean_of_keras(self) -> type:
        """The class of means of the Keras of this model."""
        raise NotImplementedError

    def _shown_metrics(self, others: list[Any]) -> list[Any]:
        """Those of the student that are not called as others are."""
        names = {metric.name for metric in others}
        return [metric for metric in self._own_metrics() if metric.name not in names]

    def _track(self, tracker: Any, loss: Any, outputs: Any) -> None:
        """Add a loss to a mean over examples; each replica has an equal share of the loss."""
        tracker.update_state(loss * _replicas.number(), sample_weight=batch_size(outputs))

    def _results(
        self, loss: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any
    ) -> dict[str, Any]:
        """Update the metrics and return all of them."""
        self._track(self._loss_tracker, loss, y_pred)
        if y is None:
            # The other metrics need labels.
            return self._tracked_losses()
        known, weight = self._labels.for_metrics(y, sample_weight, y_pred)
        return self.compute_metrics(x, known, y_pred, weight)

    def _trackers(self) -> list[Any]:
        """The means of the losses."""
        return [
            self._loss_tracker,
            self.student_loss_tracker,
            self.distillation_loss_tracker,
            self.total_loss_tracker,
        ]

    def _tracked_losses(self) -> dict[str, Any]:
        trackers = self._trackers()
        shown = [*trackers, *self._shown_metrics(trackers)]
        return {tracker.name: tracker.result() for tracker in shown}


def batch_size(outputs: Any) -> Any:
    """The number of examples in a structure of tensors."""
    return ops.shape(keras.tree.flatten(outputs)[0])[0]


def compare(metric: Agreement, teacher: Any, student: Any) -> None:
    """Add a batch to the metric.

    Args:
        metric: what counts.
        teacher: the teacher's outputs, a structure of tensors; None if it gives features alone.
        student: the student's.

    Raises:
        ValueError: if the models have no outputs in common.
    """
    if teacher is not None:
        teacher, student = matched(teacher, student, _ON_CLASSES)
    others = {} if teacher is None else outputs_by_key(teacher)
    pairs = [
        (others[key], output)
        for key, output in outputs_by_key(student).items()
        if key in others and not keras.tree.is_nested(others[key])
    ]
    if not pairs:
        raise problem(
            "keras_kd.metrics.Agreement for models without a common output",
            "a teacher and a student with outputs for the same classes",
            "leave the metric out of compile",
        )
    for pair in pairs:
        metric.update_state(*map(_choosing, pair))


def _choosing(output: Any) -> Any:
    """The logits behind an output, all of them."""
    seen = recognise_logits(output)
    if seen.top is None:
        # A mean of several models' probabilities has no logits.
        return output if seen.members is not None else seen.logits
    # The largest is among those that are known.
    best = ops.take_along_axis(
        seen.top.classes, ops.expand_dims(ops.argmax(seen.logits, axis=-1), -1), axis=-1
    )
    return ops.one_hot(best[..., 0], seen.top.number_of_classes)
