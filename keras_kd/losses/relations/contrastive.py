"""Contrast: each example's student features pick the teacher's of the same example."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_kd import _backends
from keras_kd._checks import check_integer, check_number, problem
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.geometry import directions, flatten
from keras_kd.losses.relations.base import BatchLoss


def contrastive(
    teacher_vectors: Any, student_vectors: Any, weights: Any, *, temperature: float = 0.07
) -> Any:
    """Cross-entropy of finding each example's teacher vector among those of the batch: a scalar.

    Args:
        teacher_vectors: tensor of shape `(batch, units)`.
        student_vectors: tensor of the same shape.
        weights: what each example counts, shape `(batch,)`: as the one to find, and as one of those
            to distinguish it from.
        temperature: what the cosine similarities are divided by.
    """
    similarities = (
        ops.matmul(directions(student_vectors), ops.transpose(directions(teacher_vectors)))
        / temperature
    )
    present = weights > 0
    # The logarithm of 0 with a gradient: exp of it is 0, also after a subtraction of the largest.
    log_weights = ops.where(present, ops.log(ops.where(present, weights, 1.0)), -1e9)
    is_own = ops.eye(ops.shape(weights)[0], dtype=weights.dtype)
    rivals = similarities + (1.0 - is_own) * log_weights
    values = ops.logsumexp(rivals, axis=-1) - ops.diagonal(similarities)
    return ops.divide_no_nan(ops.sum(weights * values), ops.sum(weights))


@keras.saving.register_keras_serializable(package="keras_kd")
class ContrastiveRepresentation(BatchLoss):
    """Contrastive representation distillation (CRD): match each example's features in the batch.

    Maximizes a lower bound of the information that both features share. Two linear projections,
    trained with the student, bring features of any sizes to `projection_units`. The larger the
    batch, the more examples there are to distinguish. Its usual weight is 0.8.

        loss = -mean_i log(exp(c_ii / temperature) / sum_j exp(c_ij / temperature)),
               c_ij = cos(P_s s_i, P_t t_j)

    A property of the batch. Features have shape `(batch, ...)`, all sizes but the batch known;
    they may differ between the models. Sample weights weigh examples, and in the sum over j those
    other than i; an example of weight 0 is not in it. The minimum is above 0, and a student that
    equals its teacher does not reach it before the projections agree.

    Args:
        teacher_layer_name: the teacher's layer, see `FeatureLoss`. The projections belong to one
            pair of layers: make an object for each pair.
        student_layer_name: the student's layer.
        temperature: above 0; the smaller, the more the nearest of the others count.
        projection_units: how many numbers the projections give.
        adapter: see `FeatureLoss`; none is made unless it is given.

    Attributes:
        weights: the projections, of shapes `(teacher size, projection_units)` and
            `(student size, projection_units)`; made on first use.

    Raises:
        TypeError: if the temperature is not a number or the number of units no integer.
        ValueError: if one of them is not above 0, or features have another size than those that
            the projections were made for.

    Example:
        >>> import numpy as np
        >>> loss = ContrastiveRepresentation("embedding", "embedding", projection_units=16)
        >>> one = np.ones((1, 4))
        >>> float(loss.compute_loss(one, one))  # there is no other example to confuse it with
        0.0
        >>> [tuple(variable.shape) for variable in loss.weights]
        [(4, 16), (4, 16)]

    Reference:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, ICLR 2020. Where the authors
        draw 16384 negatives from a memory bank of the whole training set, which needs the index of
        each example, the other examples of the batch are the negatives here; the objective is the
        cross-entropy (InfoNCE) of van den Oord, Li, Vinyals: Representation Learning with
        Contrastive Predictive Coding, 2018, in place of noise-contrastive estimation; and only the
        student's features are anchors. Temperature and units are those of the authors' code.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        temperature: float = 0.07,
        projection_units: int = 128,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.temperature = check_number(
            "temperature", temperature, above=0, fix="use a temperature such as 0.07"
        )
        self.projection_units = check_integer(
            "projection_units", projection_units, at_least=1, fix="use a number such as 128"
        )
        self._projections: list[keras.Variable] = []

    @property
    def weights(self) -> list[keras.Variable]:
        """The projections of the teacher's and of the student's features, once they are made."""
        return list(self._projections)

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        """Make the projections.

        Args:
            teacher_shape: shape of the teacher's features, batch first.
            student_shape: shape of the student's features.

        Raises:
            ValueError: if a size is unknown, or another than before.
        """
        sizes = [_size(teacher_shape), _size(student_shape)]
        if not self._projections:
            self._projections = [
                _backends.new_variable(
                    (size, self.projection_units),
                    keras.initializers.GlorotUniform(seed=seed),
                    name=f"{side}_projection",
                )
                for seed, (side, size) in enumerate(zip(("teacher", "student"), sizes, strict=True))
            ]
        made_for = [projection.shape[0] for projection in self._projections]
        if sizes != made_for:
            raise problem(
                f"features of sizes {sizes} for projections of sizes {made_for}",
                "one pair of layers of fixed sizes",
                "make a ContrastiveRepresentation for each pair of layers",
            )

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """Any shape: the projections bring both to one."""
        return student_shape

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """`contrastive` of the projected features."""
        teacher, student = (
            ops.matmul(flatten(features), ops.cast(projection, features.dtype))
            for features, projection in zip((teacher, student), self._projections, strict=True)
        )
        return contrastive(teacher, student, weights, temperature=self.temperature)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "projection_units": self.projection_units,
        }


def _size(shape: tuple[int | None, ...]) -> int:
    sizes = [size for size in shape[1:] if size is not None]
    if len(sizes) < len(shape) - 1:
        raise problem(
            f"features of shape {tuple(shape)}",
            "sizes that are known, for a projection of all of them",
            "pool or pad what varies, as with keras.layers.GlobalAveragePooling1D",
        )
    return math.prod(sizes)
