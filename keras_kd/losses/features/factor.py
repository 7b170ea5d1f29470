"""Factors: normalized summaries of feature maps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.features.attention import attention
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.features.maps import PooledMapLoss, same_size


def factor_transfer(
    teacher_features: Any, student_features: Any, power: float = 2.0, norm: float = 1.0
) -> Any:
    """Mean over the positions of |difference of the factors|^norm: `(batch,)`.

    Maps of different sizes are pooled to the smaller.

    Raises:
        ValueError: if they are no maps, their numbers of axes differ, or a size is not known.
    """
    teacher, student = same_size(teacher_features, student_features)
    difference = ops.abs(attention(student, power) - attention(teacher, power))
    return ops.mean(ops.power(difference, norm), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class FactorTransfer(PooledMapLoss):
    """Factor transfer (FT): difference of normalized factors, by default its absolute value.

    Made for the outputs of small networks that paraphrase the teacher's features and translate the
    student's; name those layers, or the features themselves. Its usual weight is 200.

        factor(f) = unit(mean over channels of |f|^power),  unit(v) = v / its norm
        loss = mean over positions of |factor(student) - factor(teacher)|^norm

    With `norm=2` it is `AttentionTransfer`. Maps of different sizes are first averaged, along each
    axis, to the smaller of the two. A map of zeros has a factor of zeros.

    Args:
        teacher_layer_name: see `FeatureLoss`. The features have the shape `(batch, ..., channels)`
            with at least one axis of positions, of a size that is known.
        student_layer_name: see `FeatureLoss`.
        power: from 1; what the values are raised to.
        norm: from 1; what the differences are raised to.
        adapter: see `FeatureLoss`; none is made.

    Raises:
        TypeError: if power or norm is not a number.
        ValueError: if power or norm is below 1; later, if features have no positions.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[[1.0], [0.0]]]), np.array([[[3.0], [0.0]]])
        >>> float(FactorTransfer().compute_loss(teacher, student))
        0.0

    Reference:
        Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer,
        NeurIPS 2018. The paper normalizes whole factors; the mean over the channels, as in
        RepDistiller, lets factors of different numbers of channels be compared.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        power: float = 2.0,
        norm: float = 1.0,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.power = check_number("power", power, at_least=1, fix="use a power such as 2")
        self.norm = check_number("norm", norm, at_least=1, fix="use a norm such as 1")

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`factor_transfer` of the maps."""
        return factor_transfer(teacher_output, student_output, self.power, self.norm)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "power": self.power, "norm": self.norm}
