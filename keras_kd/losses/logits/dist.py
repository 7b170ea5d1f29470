"""Correlations in place of equality: between classes of an example, and examples of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import schedules
from keras_kd._checks import check_number
from keras_kd.losses.base import OutputKey, Pair
from keras_kd.losses.logits.base import TemperedLoss, class_logits
from keras_kd.losses.logits.standardized import deviations_from_mean
from keras_kd.losses.reduction import align, example_weights, without_ignored

# Below this norm of the deviations a correlation fades to 0: float32 holds no smaller ones well,
# and classes of negligible probability have no influence. That of PyTorch's cosine.
_SMALLEST_NORM = 1e-8


def correlation_distance(teacher: Any, student: Any, weights: Any, *, axis: int = -1) -> Any:
    """One minus Pearson's correlation along an axis: 0 where one is a multiple of the other.

    Args:
        teacher: tensor of any shape; no gradient flows into it.
        student: tensor of the same shape.
        weights: what each value counts, broadcastable, with the size of `axis`.
        axis: the axis that the correlation is over.

    Returns:
        A tensor without `axis`; 1 where either is constant.
    """
    teacher, teacher_is_unit = _direction(ops.stop_gradient(teacher), weights, axis)
    student, student_is_unit = _direction(student, weights, axis)
    # Between unit vectors, half the squared distance is one minus the product and does not cancel.
    return ops.where(
        ops.logical_and(teacher_is_unit, student_is_unit),
        0.5 * ops.sum(weights * ops.square(teacher - student), axis=axis),
        1.0 - ops.sum(weights * teacher * student, axis=axis),
    )


def _direction(values: Any, weights: Any, axis: int) -> tuple[Any, Any]:
    """The deviations as a vector of norm 1, and whether they are large enough to be one."""
    deviations, squares, flat = deviations_from_mean(values, weights, axis=axis)
    smallest = _SMALLEST_NORM**2
    # Constant values are divided by 1: their gradient stays finite, and is no blow.
    norm = ops.sqrt(ops.where(flat, 1.0, ops.maximum(squares, smallest)))
    is_unit = ops.logical_and(ops.logical_not(flat), squares >= smallest)
    return deviations / norm, ops.squeeze(is_unit, axis=axis)


@keras.saving.register_keras_serializable(package="keras_kd")
class DIST(TemperedLoss):
    """DIST: one minus the correlation of softened outputs, within examples and within classes.

    Transfers the teacher's order and proportions, not its probabilities: which
    classes an example is like, and which examples a class is like. Use it where the teacher is far
    stronger than the student. Its usual weight is 1, with both of its own at 1 or 2.

        loss = T^2 * (inter_weight * mean over examples i of (1 - r(p_i, q_i))
                      + intra_weight * mean over classes c of (1 - r(p_c, q_c))),
            p = softmax(teacher / T), q = softmax(student / T), r is Pearson's correlation

    The second part is a property of the batch: an example of sample weight 0, or one that is
    masked, is not in it; the others count in proportion to their weights in the correlations, and
    the loss is multiplied by the mean weight. Each position of outputs of shape
    `(batch, ..., classes)` is an example. A constant is correlated with nothing, r = 0. Models that
    end in a softmax are recognised and compared by their logits.

    Args:
        temperature: T, above 0; a number, a `keras.optimizers.schedules.LearningRateSchedule` or a
            function of the step.
        inter_weight: weight of the correlation between the classes, at least 0; beta in the paper.
        intra_weight: weight of the correlation between the examples, at least 0; gamma in the
            paper.
        outputs: the outputs to compare, see `DistillationLoss`.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is out of range. When called: if the outputs are no distribution
            over at least two classes.

    Example:
        >>> import numpy as np
        >>> loss = DIST()
        >>> teacher = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> student = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        0.7342

    Reference:
        Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022.
        The authors' code adds 1e-8 to the product of the norms in r; here each norm is at least
        1e-8, as in `torch.nn.functional.cosine_similarity`.
    """

    reads_whole_batch = True

    def __init__(
        self,
        temperature: schedules.Schedule = 1.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        *,
        outputs: OutputKey | Sequence[OutputKey] | None = None,
    ) -> None:
        super().__init__(temperature, outputs=outputs)
        fix = "use a weight such as 1.0"
        self.inter_weight = check_number("inter_weight", inter_weight, at_least=0, fix=fix)
        self.intra_weight = check_number("intra_weight", intra_weight, at_least=0, fix=fix)

    def of_pair(self, pair: Pair, *, step: Any = None, **context: Any) -> Any:
        """Both parts of one pair of outputs, as a scalar."""
        teacher, student = class_logits(pair.teacher, pair.student, type(self).__name__)
        temperature = self.temperature_at(step, student.logits.dtype)
        sample_weight, mask = (
            _per_position(given, student.logits) for given in (pair.sample_weight, pair.mask)
        )
        teacher, student = (
            ops.reshape(logits, (-1, student.logits.shape[-1]))
            for logits in (teacher.at(temperature, "softmax"), student.logits)
        )
        weights, factor = example_weights(student, sample_weight, mask)
        teacher, student = (
            ops.softmax(without_ignored(logits, weights) / temperature, axis=-1)
            for logits in (teacher, student)
        )
        inter = correlation_distance(teacher, student, ops.ones_like(student[:1]))
        inter = ops.divide_no_nan(ops.sum(weights * inter), ops.sum(weights))
        intra = correlation_distance(teacher, student, ops.expand_dims(weights, axis=-1), axis=0)
        parts = self.inter_weight * inter + self.intra_weight * ops.mean(intra)
        return factor * temperature**2 * parts

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "inter_weight": self.inter_weight,
            "intra_weight": self.intra_weight,
        }


def _per_position(weight: Any, logits: Any) -> Any:
    """A sample weight or mask, one number for each position of the logits, in a row."""
    if weight is None:
        return None
    positions = logits[..., 0]
    return ops.reshape(ops.broadcast_to(align(weight, positions), ops.shape(positions)), (-1,))
