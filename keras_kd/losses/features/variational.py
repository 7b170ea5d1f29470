"""Variational information: how well the student's features predict the teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _backends
from keras_kd._checks import check_number, problem
from keras_kd.losses.features.base import FeatureLoss, LayerNames

_FIRST_VARIANCE = 5.0


def variational_information(
    teacher_features: Any, student_features: Any, log_scale: Any, epsilon: float = 1e-5
) -> Any:
    """Negative log-likelihood of the teacher's features, less a constant: `(...)`.

    The mean over the channels.

    Args:
        teacher_features: tensor of shape `(batch, ..., channels)`.
        student_features: tensor of the same shape, the means of normal distributions.
        log_scale: what gives their variances, softplus(log_scale) + epsilon; `(channels,)`.
        epsilon: the least variance, where the likelihood would have no bound.
    """
    variance = ops.softplus(ops.cast(log_scale, student_features.dtype)) + epsilon
    squares = ops.square(student_features - teacher_features)
    return ops.mean(0.5 * (squares / variance + ops.log(variance)), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kd")
class VariationalInformation(FeatureLoss):
    """Variational information distillation (VID): Gaussian likelihood with learned variances.

    A lower bound of the mutual information between both. Like `Hint`, but channels that the
    student cannot follow get a large variance and count less. Its usual weight is 1.

        variance_c = softplus(log_scale_c) + epsilon
        loss = mean over positions and channels of
               ((student - teacher)^2 / variance_c + log variance_c) / 2

    Features of shape `(batch, ..., channels)` give one value per example and position. The value
    can be negative, and is not 0 where student equals teacher. An adapter brings the student's
    features to the teacher's shape, as the regressor of the paper does.

    Args:
        teacher_layer_name: see `FeatureLoss`; one layer, as the variances belong to it.
        student_layer_name: see `FeatureLoss`.
        epsilon: the least variance, above 0 and below 5, the variance at the beginning.
        adapter: see `FeatureLoss`.

    Attributes:
        log_scale: what the loss learns, a `keras.Variable` of shape `(channels,)`; `None` until
            the number of channels is known, at the first use.

    Raises:
        TypeError: if epsilon is not a number.
        ValueError: if epsilon is out of bounds, or several layers are given.

    Example:
        >>> import numpy as np
        >>> loss = VariationalInformation()
        >>> value = loss.compute_loss(np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]]))
        >>> round(float(value), 4)  # (1 + 9) / 2 / 5 / 2 + log(5) / 2
        1.3047

    Reference:
        Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge
        Transfer, CVPR 2019.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        epsilon: float = 1e-5,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        if isinstance(self.teacher_layer_name, list):
            _check_single(self.teacher_layer_name)
        self.epsilon = check_number(
            "epsilon", epsilon, above=0, at_most=1, fix="use a small number such as 1e-5"
        )
        self.log_scale: keras.Variable | None = None

    @property
    def weights(self) -> list[keras.Variable]:
        """`log_scale`, once it is made."""
        return [] if self.log_scale is None else [self.log_scale]

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        """Make `log_scale` so that every variance is 5, as the authors do.

        Raises:
            ValueError: if the number of channels is not known, or another than before.
        """
        channels = student_shape[-1]
        known = None if self.log_scale is None else self.log_scale.shape[0]
        if channels is None or known not in (None, channels):
            raise problem(
                f"features of shape {tuple(student_shape)} for VariationalInformation"
                + ("" if known is None else f" with {known} variances"),
                f"{known or 'a known number of'} channels",
                "use one VariationalInformation for each pair of layers",
            )
        if known is None:
            first = math.log(math.expm1(_FIRST_VARIANCE - self.epsilon))
            self.log_scale = _backends.new_variable((channels,), first, "log_scale")

    def pairs(self, teacher_outputs: Any, student_outputs: Any) -> list[tuple[Any, Any, Any]]:
        """The only pair of features.

        Raises:
            ValueError: if there are several.
        """
        pairs = super().pairs(teacher_outputs, student_outputs)
        _check_single([key for key, _, _ in pairs])
        return pairs

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`variational_information` of the features."""
        return variational_information(teacher_output, student_output, self.log_scale, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


def _check_single(keys: Sequence[Any]) -> None:
    if len(keys) != 1:
        raise problem(
            f"several features {keys} for one VariationalInformation",
            "the features of one layer of each model, to which the variances belong",
            "use one VariationalInformation for each pair of layers",
        )
