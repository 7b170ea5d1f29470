"""Channel-wise distillation: where each channel of a map is strong."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_number
from keras_kd._logits import IMPOSSIBLE
from keras_kd.losses.base import OutputKey, Pair
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.features.maps import MapLoss, check_map
from keras_kd.losses.logits.base import logits_behind
from keras_kd.losses.logits.soft_targets import soft_targets
from keras_kd.losses.reduction import has_positions_of


def channel_wise(
    teacher_features: Any, student_features: Any, temperature: float = 4.0, mask: Any = None
) -> Any:
    """T^2 times the mean over the channels of a KL divergence over the positions: `(batch,)`.

    Args:
        teacher_features: tensor of shape `(batch, ..., channels)`.
        student_features: tensor of the same shape.
        temperature: T, what the features are divided by before the softmax over the positions.
        mask: `None`, or the positions that count, of shape `(batch, ...)`.
    """
    teacher, student = (
        _by_channel(features, mask) for features in (teacher_features, student_features)
    )
    divergences = soft_targets(teacher, student, temperature=temperature)
    return temperature**2 * ops.mean(divergences, axis=-1)


def _by_channel(features: Any, mask: Any) -> Any:
    """`(batch, ..., channels)` to `(batch, channels, positions)`."""
    if mask is not None:
        while len(mask.shape) < len(features.shape):
            mask = ops.expand_dims(mask, axis=-1)
        features = ops.where(mask, features, IMPOSSIBLE)
    shape = ops.shape(features)
    return ops.transpose(ops.reshape(features, (shape[0], -1, shape[-1])), (0, 2, 1))


@keras.saving.register_keras_serializable(package="keras_kd")
class ChannelWiseDistillation(MapLoss):
    """Channel-wise distillation (CWD): KL divergence of each channel's distribution over positions.

    Transfers where each channel is strong. Made for dense prediction (segmentation, detection): on
    the maps of logits, one channel per class, where each channel locates a class, or on features.
    The paper's weight is 3 for logits and 50 for features.

        loss = T^2 / channels * sum_c sum_i p_ci * (log p_ci - log q_ci),
               p_c = softmax over positions i of teacher_c / T,  q_c likewise of the student

    Maps have the shape `(batch, ..., channels)`, any number of axes of positions, and give one
    value per example. Masked positions are in neither distribution. Without layer names it compares
    the models' outputs; those that end in a softmax or sigmoid by their logits.

    Args:
        teacher_layer_name: see `FeatureLoss`.
        student_layer_name: see `FeatureLoss`.
        temperature: T, above 0; a high one looks at larger regions.
        adapter: see `FeatureLoss`; it brings the student's features to the teacher's shape.

    Raises:
        TypeError: if the temperature is not a number.
        ValueError: if the temperature is not above 0; later, if features have no positions.

    Example:
        >>> import numpy as np
        >>> loss = ChannelWiseDistillation(temperature=1.0)
        >>> teacher, student = np.array([[[0.0], [0.0]]]), np.array([[[0.0], [1.0]]])
        >>> round(float(loss.compute_loss(teacher, student)), 4)
        0.1201

    Reference:
        Shu, Liu, Gao, Yan, Shen: Channel-Wise Knowledge Distillation for Dense Prediction, ICCV
        2021.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        temperature: float = 4.0,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.temperature = check_number(
            "temperature", temperature, above=0, fix="use a temperature such as 4.0"
        )

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes: equal ones of maps.

        Raises:
            ValueError: if they are not.
        """
        check_map(teacher_shape)
        super().check_shapes(key, teacher_shape, student_shape)

    def prepare(self, teacher_output: Any, student_output: Any) -> tuple[Any, Any]:
        """Both in the student's precision; of the models' outputs, the logits behind them."""
        if self.student_layer_name is None:
            teacher, student = logits_behind(teacher_output, student_output)
            teacher_output, student_output = teacher.logits, student.logits
        return super().prepare(teacher_output, student_output)

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The loss of one pair of maps as a scalar: the weighted mean of `per_example`."""
        positions = None
        if pair.mask is not None and has_positions_of(pair.student, pair.mask):
            positions = ops.cast(ops.convert_to_tensor(pair.mask), "bool")
        return super().of_pair(pair, positions=positions, **context)

    def per_example(
        self, teacher_output: Any, student_output: Any, *, positions: Any = None, **context: Any
    ) -> Any:
        """`channel_wise` of the maps; `positions` are those that count."""
        return channel_wise(teacher_output, student_output, self.temperature, positions)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "temperature": self.temperature}
