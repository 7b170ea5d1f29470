"""Partial squared distance: what a ReLU will cut off anyway need not be equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd._checks import problem
from keras_kd.losses.base import OutputKey
from keras_kd.losses.features.base import FeatureLoss, LayerNames
from keras_kd.losses.features.maps import number_of_positions

# Of channels that are negative more rarely than this, too few values are left to average.
_RARELY_NEGATIVE = 0.001


def partial_l2(teacher_features: Any, student_features: Any, margin: Any) -> Any:
    """Squared distance to the teacher's values, unless both are negative and it is far: `(...)`.

    The sum over the channels, times the number of positions, so that the mean over the positions
    is the sum over the map.

    Args:
        teacher_features: tensor of shape `(batch, ..., channels)`.
        student_features: tensor of the same shape.
        margin: what the teacher's values are at least, of shape `(channels,)`.
    """
    margin = ops.convert_to_tensor(margin, dtype=student_features.dtype)
    target = ops.maximum(teacher_features, margin)
    counts = ops.logical_or(student_features > target, target > 0)
    difference = ops.where(counts, student_features - target, ops.zeros_like(target))
    return number_of_positions(student_features) * ops.sum(ops.square(difference), axis=-1)


def margin_from_batch_normalization(layer: Any) -> list[float]:
    """What each channel's negative values are on average, for the `margin` of `PartialL2`.

    A layer's outputs have the mean beta and the standard deviation |gamma| over the training data.
    If they are distributed normally, the mean of those below 0 is

        beta - |gamma| * density(beta / gamma) / probability of a value below 0

    Where less than 0.1 % of the values are below 0, it is -3 |gamma| as in the authors' code.

    Args:
        layer: the teacher's `BatchNormalization` whose outputs are compared, of either Keras.

    Returns:
        One number per channel.

    Raises:
        TypeError: if the layer is no `BatchNormalization`.
        ValueError: if it has not been built.

    Example:
        >>> layer = keras.layers.BatchNormalization()
        >>> layer.build((None, 2))
        >>> [round(value, 4) for value in margin_from_batch_normalization(layer)]
        [-0.7979, -0.7979]
    """
    _check_layer(layer)
    channels = layer.moving_mean.shape[0]
    gamma = np.ones(channels) if layer.gamma is None else np.asarray(layer.gamma)
    beta = np.zeros(channels) if layer.beta is None else np.asarray(layer.beta)
    return [
        _mean_of_the_negative(float(mean), abs(float(deviation)))
        for mean, deviation in zip(beta, gamma, strict=True)
    ]


def _mean_of_the_negative(mean: float, deviation: float) -> float:
    if deviation == 0:
        return min(mean, 0.0)
    distance = mean / deviation
    probability = math.erfc(distance / math.sqrt(2)) / 2
    if probability <= _RARELY_NEGATIVE:
        return -3 * deviation
    density = math.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
    return mean - deviation * density / probability


@keras.saving.register_keras_serializable(package="keras_kd")
class PartialL2(FeatureLoss):
    """Partial L2 of the feature overhaul (OFD): squared difference of features before a ReLU.

    Transfers what the teacher's ReLU keeps: where the teacher is negative the student must only be
    below the margin. Compare the outputs of the `BatchNormalization` before a ReLU. It is a sum
    over the map, so weights are small: the authors use 0.001, halved for each stage further from
    the output.

        target = max(teacher, margin)
        loss = sum over positions and channels of (student - target)^2 where student > target or
               target > 0

    Features of shape `(batch, ..., channels)` give one value per example and position, times the
    number of positions.

    Args:
        teacher_layer_name: see `FeatureLoss`.
        student_layer_name: see `FeatureLoss`.
        margin: what the teacher's values are at least, one number per channel: an array of as many
            values as channels. `PartialL2.margin_from_batch_normalization(layer)` gives the
            paper's.
        adapter: see `FeatureLoss`; it brings the student's features to the teacher's shape.

    Raises:
        TypeError: if the margin does not hold numbers.
        ValueError: if the margin is empty, not finite or has more than one axis; later, if it has
            not one number per channel.

    Example:
        >>> import numpy as np
        >>> loss = PartialL2(margin=[-1.0, -1.0])
        >>> float(loss.compute_loss(np.array([[3.0, -7.0]]), np.array([[1.0, -2.0]])))
        4.0

    Reference:
        Heo, Kim, Yun, Park, Kwak, Choi: A Comprehensive Overhaul of Feature Distillation, ICCV
        2019. The authors' code divides by the batch and 1000 afterwards; here the mean over the
        batch is taken, and the rest is left to the weight.
    """

    margin_from_batch_normalization = staticmethod(margin_from_batch_normalization)

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        margin: Sequence[float],
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        self.margin = _check_margin(margin)

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`partial_l2` of the features."""
        self._check_channels(student_output.shape)
        return partial_l2(teacher_output, student_output, self.margin)

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes, and that the margin has one number per channel.

        Raises:
            ValueError: if the formula cannot compare them.
        """
        super().check_shapes(key, teacher_shape, student_shape)
        self._check_channels(teacher_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "margin": self.margin}

    def _check_channels(self, shape: Any) -> None:
        if shape[-1] not in (None, len(self.margin)):
            raise problem(
                f"a margin of {len(self.margin)} numbers for features of shape {tuple(shape)}",
                f"one number for each of the {shape[-1]} channels",
                "compute it from the teacher's layer with "
                "PartialL2.margin_from_batch_normalization(layer)",
            )


def _check_margin(margin: Any) -> list[float]:
    """The margin as a list of floats; axes of one value, as in `(1, 1, 1, channels)`, go."""
    fix = "pass for example PartialL2.margin_from_batch_normalization(teacher_layer)"
    expected = "one finite number per channel"
    try:
        array = np.asarray(margin, "float64")
    except (TypeError, ValueError):
        raise problem(f"margin={margin!r}", expected, fix, kind=TypeError) from None
    if not (array.ndim > 0 and array.size > 0 and array.size == array.shape[-1]):
        raise problem(f"a margin of shape {array.shape}", expected, fix)
    if not np.isfinite(array).all():
        raise problem(f"margin={array.ravel().tolist()}", expected, fix)
    return array.ravel().tolist()


def _check_layer(layer: Any) -> None:
    fix = "pass the layer of a built teacher, such as teacher.get_layer('bn1')"
    # The class has this name in Keras 3 and tf_keras, and one of them may not be there.
    if not any(base.__name__ == "BatchNormalization" for base in type(layer).__mro__):
        raise problem(f"{layer!r}", "a BatchNormalization layer", fix, kind=TypeError)
    if not layer.built:
        raise problem(f"the layer {layer.name!r}, which has no weights yet", "a built layer", fix)
