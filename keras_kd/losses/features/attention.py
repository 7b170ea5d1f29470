"""Attention: where a network looks, the energy of its channels at each position."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.features.maps import PooledMapLoss, same_size, unit


def attention(features: Any, power: float = 2.0) -> Any:
    """Where a map is strong: `(batch, ..., channels)` to `(batch, positions)`, of norm 1.

    The mean over the channels of |value|^power, divided by its norm over the positions.
    """
    strength = ops.square(features) if power == 2.0 else ops.power(ops.abs(features), power)
    # A vector and its multiples have one direction: the sum does for the mean.
    strength = ops.sum(strength, axis=-1)
    return unit(ops.reshape(strength, (-1, math.prod(strength.shape[1:]))), axis=-1)


def attention_transfer(teacher_features: Any, student_features: Any, power: float = 2.0) -> Any:
    """Mean over the positions of the squared differences of attention: `(batch,)`.

    Maps of different sizes are pooled to the smaller.

    Raises:
        ValueError: if they are no maps, their numbers of axes differ, or a size is not known.
    """
    teacher, student = same_size(teacher_features, student_features)
    return ops.mean(ops.square(attention(student, power) - attention(teacher, power)), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class AttentionTransfer(PooledMapLoss):
    """Attention transfer (AT): squared difference of attention maps.

    Transfers where the teacher's activations are large: student and teacher may have any
    numbers of channels. Useful for convolutional networks of the same kind, at the end of each
    stage; its usual weight is 1000.

        attention(f) = unit(mean over channels of |f|^power),  unit(v) = v / its norm
        loss = mean over positions of (attention(student) - attention(teacher))^2

    Maps of different sizes are first averaged, along each axis, to the smaller of the two. A map
    of zeros has an attention of zeros.

    Args:
        teacher_layer_name: see `FeatureLoss`. The features have the shape `(batch, ..., channels)`
            with at least one axis of positions, of a size that is known.
        student_layer_name: see `FeatureLoss`.
        power: from 1; a high power attends to the strongest channel only.
        adapter: see `FeatureLoss`; none is made.

    Raises:
        TypeError: if the power is not a number.
        ValueError: if the power is below 1; later, if features have no positions.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[[1.0], [0.0]]]), np.array([[[0.0], [3.0]]])
        >>> float(AttentionTransfer().compute_loss(teacher, student))
        1.0

    Reference:
        Zagoruyko, Komodakis: Paying More Attention to Attention: Improving the Performance of
        Convolutional Neural Networks via Attention Transfer, ICLR 2017. The authors' code, as this
        one, takes the mean of the squared differences where the paper takes their root; it leaves
        out the absolute value, which matters for odd powers of negative values.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        power: float = 2.0,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.power = check_number("power", power, at_least=1, fix="use a power such as 2")

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`attention_transfer` of the maps."""
        return attention_transfer(teacher_output, student_output, self.power)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "power": self.power}
