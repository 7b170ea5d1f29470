"""A layer to factorize: the cost and the error of each form and rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.factorization.decomposition import Decomposition
from keras_kd.compression.factorization.forms import Form

_ATTRIBUTE = "_keras_kd_factorization"


@dataclass(frozen=True)
class FactorizedLayer:
    """A layer that became two.

    The errors are exact worst cases up to the rounding of weights to their dtype. They are
    those of the layer's output before its activation; relu, tanh, sigmoid and softmax do not
    increase them.

    Attributes:
        form: "dense", "channel", "spatial" or "embedding".
        kernel_shape: the shape of the original kernel.
        rank: the number of units or filters of the first of the two layers.
        full_rank: the number of singular values of the original kernel in this form.
        parameters_before: the number of the layer's weights, its bias included.
        parameters_after: the same of the two layers together.
        relative_error: the distance of the kernel from the original in the Frobenius norm, as a
            share of the original's norm: the root of the share of squared singular values dropped.
        spectral_error: the largest singular value that was dropped.
        output_error: the largest change of the outputs at one position (Euclidean norm) for inputs
            to that position of norm 1. For the dense and channel-wise forms it is
            `spectral_error`, for the spatial form at most that times the root of the kernel's
            width. For an Embedding it is the largest change of the numbers of a word.
    """

    form: str
    kernel_shape: tuple[int, ...]
    rank: int
    full_rank: int
    parameters_before: int
    parameters_after: int
    relative_error: float
    spectral_error: float
    output_error: float

    def cells(self) -> tuple[str, ...]:
        """The attributes as texts for a table."""
        return (
            self.form,
            "x".join(map(str, self.kernel_shape)),
            f"{self.rank:,}",
            f"{self.full_rank:,}",
            f"{self.parameters_before:,}",
            f"{self.parameters_after:,}",
            f"{self.relative_error:.2%}",
            f"{self.output_error:.3g}",
        )


def factorization_of(student: Any) -> Mapping[str, FactorizedLayer | str]:
    """What `factorize` has noted on its result: each layer, or why it stays as it is, by name."""
    return dict(getattr(student, _ATTRIBUTE, ()))


def note_factorization(student: Any, layers: Mapping[str, FactorizedLayer | str]) -> None:
    """Note it on the result; a tuple, because Keras would track a dict."""
    setattr(student, _ATTRIBUTE, tuple(layers.items()))


@dataclass(frozen=True)
class Option:
    """A kernel in one form, truncated to one rank."""

    form: Form
    decomposition: Decomposition
    rank: int

    @property
    def parameters(self) -> int:
        """How many weights the two kernels have together."""
        return self.rank * (len(self.decomposition.left) + self.decomposition.right.shape[1])

    @property
    def squared_error(self) -> float:
        """The square of the relative error of the kernel in the Frobenius norm."""
        return float(self.decomposition.squared_errors[self.rank])

    @property
    def loss(self) -> float:
        """The negative logarithm of the share of the squared singular values that is kept."""
        return -math.log1p(-self.squared_error)


class Candidate:
    """One layer, with the decompositions of its kernel."""

    def __init__(self, name: str, layer: Any, forms: Sequence[Form]) -> None:
        self.name = name
        self.record = record_of(layer)
        self.kernel = self.record.weights[forms[0].weight]
        if not np.all(np.isfinite(self.kernel.astype("float32"))):
            raise problem(
                f"layer {name!r}, whose kernel is infinite or NaN in places",
                "finite weights",
                "factorize a student that was trained without diverging",
            )
        self._decompositions = [
            (form, Decomposition.of(form.unfold(self.kernel))) for form in forms
        ]

    def of_rank(self, rank: int) -> list[Option]:
        """The options of a rank, which may not save anything."""
        return [
            Option(form, decomposition, min(rank, decomposition.full_rank))
            for form, decomposition in self._decompositions
        ]

    def of_energy(self, energy: float) -> list[Option]:
        """The options of the lowest ranks that keep this share of the squared singular values."""
        return [
            Option(form, decomposition, decomposition.rank_of(energy))
            for form, decomposition in self._decompositions
        ]

    @cached_property
    def savings(self) -> list[Option]:
        """All options with fewer parameters than the kernel has."""
        return [
            option
            for form, decomposition in self._decompositions
            for rank in range(1, decomposition.full_rank + 1)
            if self.saves(option := Option(form, decomposition, rank))
        ]

    def saves(self, option: Option) -> bool:
        """Whether the option has fewer parameters than the kernel."""
        return option.parameters < self.kernel.size

    def describe(self, option: Option) -> FactorizedLayer:
        """What the option saves and loses."""
        form, decomposition, rank = option.form, option.decomposition, option.rank
        others = sum(value.size for value in self.record.weights.values()) - self.kernel.size
        return FactorizedLayer(
            form=form.name,
            kernel_shape=self.kernel.shape,
            rank=rank,
            full_rank=decomposition.full_rank,
            parameters_before=self.kernel.size + others,
            parameters_after=option.parameters + others,
            relative_error=option.squared_error**0.5,
            spectral_error=decomposition.spectral_error(rank),
            output_error=form.output_error(self.kernel.shape, decomposition, rank),
        )

    def records(self, option: Option, first_name: str) -> list[LayerRecord]:
        """The two layers; the second has the name, the bias and the activation of the original."""
        form, rank = option.form, option.rank
        kernels = form.kernels(self.kernel.shape, *option.decomposition.factors(rank))
        first, second = (kernel.astype(self.kernel.dtype) for kernel in kernels)
        first_config, second_config = form.configs(self.record.config, rank)
        others = {name: v for name, v in self.record.weights.items() if name != form.weight}
        layer_class = self.record.layer_class
        return [
            LayerRecord(layer_class, first_name, first_config, {form.weight: first}),
            LayerRecord(
                form.second_class or layer_class,
                self.record.name,
                second_config,
                others | {"kernel": second},
            ),
        ]
