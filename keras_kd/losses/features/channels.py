"""Relations between the channels of a feature map."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.base import OutputKey
from keras_kd.losses.features.maps import check_map, flat, unit
from keras_kd.losses.relations.base import BatchLoss


def channel_correlation(features: Any) -> Any:
    """How alike the channels' maps are: `(batch, ..., channels)` to `(batch, channels, channels)`.

    Inner products over the positions; each row has the norm 1.

    Raises:
        ValueError: if the features are vectors without positions.
    """
    check_map(features.shape)
    features = flat(features)
    return unit(ops.einsum("bpc,bpd->bcd", features, features), axis=-1)


def inter_channel_correlation(teacher_features: Any, student_features: Any) -> Any:
    """Squared difference of the correlations, summed, over the number of channels: `(batch,)`."""
    difference = channel_correlation(student_features) - channel_correlation(teacher_features)
    return ops.mean(ops.sum(ops.square(difference), axis=-1), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class InterChannelCorrelation(BatchLoss):
    """Inter-channel correlation (ICKD): squared difference of the correlations between channels.

    Transfers which channels answer together and which do not, the diversity of the features, and
    not where. Useful for convolutional networks, at the last stage.

        G(f) = rows of (f^T f) divided by their norms, f of shape (positions, channels)
        loss = sum over examples of |G(student) - G(teacher)|^2 / (channels * batch^2)

    The batch divides twice, as in the implementation named below, so the weight that fits grows
    with the batch size; begin with a weight of that size. The maps may differ in size; an adapter
    makes the numbers of channels equal. A channel of zeros has no correlation, not even with
    itself.

    Arguments are those of `FeatureLoss`, weights those of `BatchLoss`: an example of weight 0 does
    not count in the batch.

    Raises:
        ValueError: if the features are vectors without positions.

    Example:
        >>> import numpy as np
        >>> teacher = np.array([[[1.0, 0.0], [0.0, 1.0]]])
        >>> student = np.array([[[0.0, 3.0], [3.0, 0.0]]])
        >>> float(InterChannelCorrelation().compute_loss(teacher, student))
        0.0

    Reference:
        Liu, Huang, Lin, Xie, Wang, Chang, Liang: Exploring Inter-Channel Correlation for
        Diversity-Preserved Knowledge Distillation, ICCV 2021. Published implementations
        divide by the batch once or twice; here twice, as in torchdistill.
    """

    reads_maps = True

    def of_batch(self, teacher: Any, student: Any, weights: Any, **context: Any) -> Any:
        """Weighted sum of `inter_channel_correlation` over the square of the batch."""
        values = inter_channel_correlation(teacher, student)
        size = ops.sum(weights)
        return ops.divide_no_nan(ops.sum(weights * values), ops.square(size))

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """The student's own size with the teacher's channels."""
        return (*student_shape[:-1], teacher_shape[-1])

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes: maps with equally many channels.

        Raises:
            ValueError: if they are not.
        """
        check_map(teacher_shape)
        check_map(student_shape)
        super().check_shapes(key, teacher_shape, student_shape)
