"""What a factorization saved, and what it lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keras_kd._tables import aligned


@dataclass(frozen=True)
class FactorizedLayer:
    """A layer that became two.

    The errors are exact worst cases up to the rounding of weights to their dtype. They speak of
    what the layer computes before its activation; relu, tanh, sigmoid and softmax make no
    difference larger.

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


@dataclass(frozen=True)
class Factorization:
    """What `factorize` did; `print` shows it as a table.

    Attributes:
        layers: what became of each factorized layer, by name.
        skipped: why each other layer with a kernel stayed as it was, by name.
        parameters_before: the number of the original student's parameters.
        parameters_after: the number of the factorized student's parameters.
    """

    layers: Mapping[str, FactorizedLayer]
    skipped: Mapping[str, str]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        rows = [_cells(name, layer) for name, layer in self.layers.items()]
        share = self.parameters_after / self.parameters_before
        total = (
            f"all parameters: {self.parameters_before:,} -> {self.parameters_after:,} ({share:.1%})"
        )
        kept = [f"kept {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([aligned(_HEADINGS, rows, left=3), total, *kept])


_HEADINGS = ("layer", "form", "kernel", "rank", "of", "before", "after", "error", "output error")


def _cells(name: str, layer: FactorizedLayer) -> tuple[str, ...]:
    return (
        name,
        layer.form,
        "x".join(map(str, layer.kernel_shape)),
        f"{layer.rank:,}",
        f"{layer.full_rank:,}",
        f"{layer.parameters_before:,}",
        f"{layer.parameters_after:,}",
        f"{layer.relative_error:.2%}",
        f"{layer.output_error:.3g}",
    )
