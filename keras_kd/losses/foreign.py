"""Adapters for distillation losses of Keras and of users."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_kd import _logits
from keras_kd._checks import problem, three_parts
from keras_kd.losses.base import DistillationLoss, refuse_top
from keras_kd.losses.features.base import listed, read_features


def as_loss(loss: keras.distillation.DistillationLoss) -> DistillationLoss:
    """The loss as a `DistillationLoss` of this package, which a Distiller works with.

    Args:
        loss: one of `keras_kd.losses`, which is returned as it is, or another loss of Keras.
    """
    return loss if isinstance(loss, DistillationLoss) else ForeignLoss(loss)


class ForeignLoss(DistillationLoss):
    """A `keras.distillation.DistillationLoss` that returns one number for a batch.

    It reads the layers that it has as `teacher_layer_name` and `student_layer_name`, as Keras'
    `FeatureDistillation`; Keras' `LogitsDistillation` gets the logits behind probabilities.

    Args:
        loss: the loss.
    """

    # Its number is one of all examples.
    reads_whole_batch = True

    def __init__(self, loss: keras.distillation.DistillationLoss) -> None:
        super().__init__(outputs=getattr(loss, "outputs", None))
        self._loss = loss
        if isinstance(loss, keras.distillation.LogitsDistillation):
            self.softened = ("teacher", "student")

    @property
    def original(self) -> keras.distillation.DistillationLoss:
        """The loss itself."""
        return self._loss

    @property
    def reads_outputs(self) -> bool:
        """Whether it names no layer of the student."""
        return not self.layers("student")

    def layers(self, side: str) -> list[str]:
        """The layers of one model that it names."""
        return listed(self._names(side))

    def read(self, side: str, outputs: Any, features: Mapping[str, Any]) -> Any:
        """The features of these layers, or the outputs."""
        found = [features[name] for name in self.layers(side)]
        return read_features(self._names(side), outputs, found)

    def pairs(self, teacher_outputs: Any, student_outputs: Any) -> list[tuple[Any, Any, Any]]:
        """None: the loss itself decides what it compares."""
        return []

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Let the loss check them.

        Raises:
            ValueError: if it refuses them.
        """
        self._check_known(teacher_outputs)
        self._loss.validate_outputs(teacher_outputs, student_outputs)

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        *,
        sample_weight: Any = None,
        **context: Any,
    ) -> Any:
        """The number that the loss returns; sample weights cannot split it.

        Raises:
            ValueError: if it is no scalar, or of the teacher only the largest logits are known.
        """
        self._check_known(teacher_outputs)
        if self.softened:
            teacher_outputs, student_outputs = _logits_of(teacher_outputs, student_outputs)
        value = self._loss.compute_loss(teacher_outputs, student_outputs)
        name = type(self._loss).__name__
        shape = tuple(getattr(value, "shape", ()))
        if shape:
            raise problem(
                f"a value of shape {shape} from {name}.compute_loss",
                "a scalar",
                "reduce it, or subclass keras_kd.losses.DistillationLoss and return one value "
                "per example from per_example",
            )
        if sample_weight is not None:
            warnings.warn(
                three_parts(
                    f"sample weights for {name}, which returns one number per batch",
                    "a loss of keras_kd.losses, whose values are weighed per example",
                    "use for example keras_kd.losses.SoftTargets; now the weights act on the "
                    "student's own loss only",
                ),
                stacklevel=2,
            )
        return value

    def check_shapes(self, key: Any, teacher_shape: Any, student_shape: Any) -> None:
        """Nothing: the loss itself checks what it can compare."""

    def check_top(self, top: _logits.Top) -> None:
        """Refuse it: the loss has no form for `top_k`."""
        refuse_top(top, type(self._loss).__name__)

    def get_config(self) -> dict[str, Any]:
        """That of the loss."""
        return self._loss.get_config()

    def _names(self, side: str) -> Any:
        return getattr(self._loss, f"{side}_layer_name", None)


def _logits_of(teacher: Any, student: Any) -> tuple[Any, Any]:
    """The logits of both, one distribution on the last axis."""
    seen = [
        [_logits.recognise_logits(output) for output in keras.tree.flatten(outputs)]
        for outputs in (teacher, student)
    ]
    if len(seen[0]) == len(seen[1]):
        pairs = [_logits.common_rows(*pair) for pair in zip(*seen, strict=True)]
        seen = [list(one) for one in zip(*pairs, strict=True)]
    return tuple(
        keras.tree.pack_sequence_as(outputs, [one.logits for one in found])
        for outputs, found in zip((teacher, student), seen, strict=True)
    )
