"""Differences of the logits: their mean square, and as a hint that the student predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _backends, _keras
from keras_kd._checks import problem, shapes_fit
from keras_kd.losses.base import DistillationLoss, OutputKey, matching_outputs
from keras_kd.losses.logits.base import logits_behind


def logits_mean_squared_error(teacher_logits: Any, student_logits: Any) -> Any:
    """Mean over the classes of the squared differences: `(..., classes)` to `(...)`."""
    return ops.mean(ops.square(ops.stop_gradient(teacher_logits) - student_logits), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class LogitsMSE(DistillationLoss):
    """Mean squared difference of the logits.

    Makes the student a regression of the teacher's logits; also the limit of `SoftTargets` at
    high temperature (for centred logits, up to a constant). Fits regression models as well.

        loss = mean_c (teacher_c - student_c)^2

    Outputs of shape `(batch, ..., classes)` give one value per example and position. Models that
    end in a softmax or sigmoid are recognised and compared by their logits.

    Args:
        outputs: the outputs to compare, see `DistillationLoss`.

    Example:
        >>> import numpy as np
        >>> float(LogitsMSE().compute_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])))
        2.0

    Reference:
        Ba, Caruana: Do Deep Nets Really Need to be Deep?, NIPS 2014.
    """

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`logits_mean_squared_error` of the logits behind both outputs."""
        teacher, student = logits_behind(teacher_output, student_output)
        return logits_mean_squared_error(teacher.logits, student.logits)


def output_difference(
    teacher_logits: Any, student_logits: Any, features: Any, kernel: Any, bias: Any
) -> Any:
    """Mean squared error of a linear prediction of teacher minus student.

    Args:
        teacher_logits: tensor of shape `(..., classes)`; no gradient flows into it.
        student_logits: tensor of the same shape.
        features: what the prediction is made from, shape `(..., features)`; the mean is taken over
            axes that the logits do not have, `(batch, height, width, features)` for instance.
        kernel: tensor of shape `(features, classes)`.
        bias: tensor of shape `(classes,)`.

    Returns:
        A tensor of shape `(...)`.
    """
    extra_axes = tuple(range(len(student_logits.shape) - 1, len(features.shape) - 1))
    features = ops.mean(features, axis=extra_axes) if extra_axes else features
    kernel, bias = (ops.cast(weight, features.dtype) for weight in (kernel, bias))
    prediction = ops.matmul(features, kernel) + bias
    difference = ops.stop_gradient(teacher_logits) - student_logits
    return ops.mean(ops.square(prediction - difference), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class OutputDifference(DistillationLoss):
    """Squared error of the student's own prediction of teacher minus student.

    A small linear regressor, which belongs to the loss and trains with the student, reads the
    student's logits or one of its layers and predicts what the teacher's logits add to the
    student's: a hint of the difference. What the student does not output yet must at least be
    predictable from its features. Its usual weight is 1.

        loss = mean_c (features @ kernel + bias - (teacher - student))_c^2

    The regressor starts at zero, where the loss is `LogitsMSE`; a student that equals its teacher
    has a loss of 0 then. Nothing is stopped on the student's side: its outputs move towards the
    teacher's, and its features towards what predicts the rest. Outputs of shape
    `(batch, ..., classes)` give one value per example and position. Models that end in a softmax or
    sigmoid are recognised and compared by their logits. The loss compares one output: name it where
    the models have several, and take one loss for each.

    Attributes:
        reads_outputs: `True`, also with a layer name. Whoever calls `compute_loss` then gives the
            pair `[outputs, features]` as `student_outputs`, as `keras_kd.Distiller` does. Keras'
            own Distiller gives one of them: there the loss works without a layer name only, and its
            regressor stays at zero.

    Args:
        student_layer_name: the student's layer that the regressor reads; features are averaged over
            the axes (height, width) that the outputs do not have. `None` for the student's logits.
        outputs: the output to compare, see `DistillationLoss`.

    Raises:
        TypeError: if the layer's name is no string.
        ValueError: when called, if there are several outputs, or the features do not fit them.

    Example:
        >>> import numpy as np
        >>> loss = OutputDifference()
        >>> float(loss.compute_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])))
        2.0

    Reference:
        After Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets,
        ICLR 2015, whose regressor predicts the teacher's features; here it predicts the difference
        of the outputs.
    """

    def __init__(
        self,
        student_layer_name: str | None = None,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(outputs=outputs)
        if not isinstance(student_layer_name, str | None):
            raise problem(
                f"student_layer_name={student_layer_name!r}",
                "the name of one layer, or None",
                "pass for example 'pooling', or 'backbone/pooling' for a layer of a nested model",
                kind=TypeError,
            )
        self.student_layer_name = student_layer_name
        self._regressor: list[keras.Variable] = []

    def layers(self, side: str) -> list[str]:
        """The student's layer that the regressor reads, where there is one."""
        return [] if side == "teacher" or not self.student_layer_name else [self.student_layer_name]

    def read(self, side: str, outputs: Any, features: Mapping[str, Any]) -> Any:
        """The outputs; with a layer name the student's as the pair `[outputs, features]`."""
        found = [features[name] for name in self.layers(side)]
        return [outputs, *found] if found else outputs

    @property
    def weights(self) -> list[keras.Variable]:
        """Kernel `(features, classes)` and bias `(classes,)` of the regressor, once it is built."""
        return list(self._regressor)

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        """Make the regressor, all zeros.

        Args:
            teacher_shape: shape of the teacher's output, batch first.
            student_shape: shape of the student's output; with a layer name the list
                `[shape of the output, shape of the features]`.

        Raises:
            ValueError: if the number of features or classes is not known.
        """
        if self._regressor:
            return
        outputs, features = self._apart(student_shape)
        sizes = (features or outputs)[-1], outputs[-1]
        if None in sizes:
            raise problem(
                f"outputs of shape {outputs} and features of shape {features or outputs} for "
                "OutputDifference",
                "a last axis of known size",
                "give the model's inputs and layers fixed numbers of channels",
            )
        self._regressor = [
            _backends.new_variable(sizes, 0.0, "output_difference_kernel"),
            _backends.new_variable(sizes[1:], 0.0, "output_difference_bias"),
        ]

    def pairs(self, teacher_outputs: Any, student_outputs: Any) -> list[tuple[Any, Any, Any]]:
        """The teacher's output and the student's, the latter with its features where they count.

        Raises:
            ValueError: if there is more than one output, or the features are missing.
        """
        outputs, features = self._apart(student_outputs)
        pairs = matching_outputs(teacher_outputs, outputs, self.outputs)
        if len(pairs) != 1:
            raise problem(
                f"{len(pairs)} outputs {[key for key, *_ in pairs]} for OutputDifference",
                "one output, for which the regressor learns",
                f"name it, as in OutputDifference(outputs={pairs[0][0]!r}), and take one loss "
                "for each",
            )
        if features is None:
            return pairs
        return [(key, teacher, [student, features]) for key, teacher, student in pairs]

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check the outputs' shapes, and that the features have all the outputs' positions.

        Raises:
            ValueError: if they do not fit.
        """
        outputs, features = self._apart(student_shape)
        super().check_shapes(key, teacher_shape, outputs)
        rank = len(outputs)
        if features is None or (
            len(features) >= rank and shapes_fit(features[: rank - 1], outputs[: rank - 1])
        ):
            return
        raise problem(
            f"features of shape {features} from {self.student_layer_name!r} for "
            f"OutputDifference on outputs of shape {outputs}",
            f"features of shape {(*outputs[:-1], 'features')}, or with further axes before "
            "the last",
            "name a layer that keeps the positions of the outputs",
        )

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`output_difference` of the logits behind both outputs."""
        outputs, features = self._apart(student_output)
        teacher, student = logits_behind(teacher_output, outputs)
        features = student.logits if features is None else _keras.at_least_float32(features)
        return output_difference(teacher.logits, student.logits, features, *self._regressor)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"student_layer_name": self.student_layer_name, **super().get_config()}

    def _apart(self, student: Any) -> tuple[Any, Any]:
        """What belongs to the student's outputs and to its features, the latter `None` for none."""
        if self.student_layer_name is None:
            return student, None
        if not isinstance(student, list | tuple) or len(student) != 2:
            raise problem(
                f"student_outputs of type {type(student).__name__} for OutputDifference("
                f"student_layer_name={self.student_layer_name!r})",
                "the pair [outputs, features]",
                "train with keras_kd.Distiller, which reads both, or leave out the layer name",
            )
        outputs, features = student
        return outputs, features
