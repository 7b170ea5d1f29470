"""Neuron selectivity: which positions each channel answers to."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_kd.losses.features.maps import PooledMapLoss, flat, same_size, unit


def selectivity(features: Any) -> Any:
    """How strongly each channel answers at each position: `(batch, positions, channels)`.

    Every channel has the norm 1 over the positions; one of zeros stays so.
    """
    return unit(flat(features), axis=1)


def neuron_selectivity_transfer(teacher_features: Any, student_features: Any) -> Any:
    """Squared maximum mean discrepancy of the channels' selectivities: `(batch,)`.

    Maps of different sizes are pooled to the smaller.

    Raises:
        ValueError: if they are no maps, their numbers of axes differ, or a size is not known.
    """
    teacher, student = map(selectivity, same_size(teacher_features, student_features))
    return (
        _mean_kernel(teacher, teacher)
        + _mean_kernel(student, student)
        - 2.0 * _mean_kernel(student, teacher)
    )


def _mean_kernel(first: Any, second: Any) -> Any:
    """Mean over all pairs of channels of the squared inner product over the positions."""
    products = ops.einsum("bpc,bpd->bcd", first, second)
    return ops.mean(ops.square(products), axis=(1, 2))


@keras.saving.register_keras_serializable(package="keras_kd")
class NeuronSelectivityTransfer(PooledMapLoss):
    """Neuron selectivity transfer (NST): squared maximum mean discrepancy (MMD) of channel maps.

    Takes each channel's map as a sample of a distribution and brings the student's distribution to
    the teacher's, so that any numbers of channels can be compared. Useful for convolutional
    networks, at the last stages; its usual weight is 50. Time and memory grow with the product of
    the numbers of channels.

        s_i = unit(channel i of the student's map),  t_j = unit(channel j of the teacher's map)
        k(a, b) = (sum over positions of a * b)^2
        loss = mean of k(t_i, t_j) + mean of k(s_i, s_j) - 2 * mean of k(s_i, t_j)

    Maps have shape `(batch, ..., channels)`; those of different sizes are first averaged, along
    each axis, to the smaller of the two. A channel of zeros stays one. Arguments and errors are
    those of `AttentionTransfer`, without a power; no adapter is made.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[[1.0], [0.0]]]), np.array([[[0.0], [3.0]]])
        >>> float(NeuronSelectivityTransfer().compute_loss(teacher, student))
        2.0

    Reference:
        Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv
        1707.01219 (2017), with the polynomial kernel of degree 2 and offset 0, its best one.
    """

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`neuron_selectivity_transfer` of the maps."""
        return neuron_selectivity_transfer(teacher_output, student_output)
