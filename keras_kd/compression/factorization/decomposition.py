"""A matrix as the sum of its singular components, truncated at any of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Below this relative error a kernel in float32 is the same kernel.
_PRECISION = 1e-6


@dataclass(frozen=True)
class Decomposition:
    """A singular value decomposition in float64.

    No matrix of a rank is closer to the original than the one that keeps as many of the largest
    singular values, in the Frobenius and in the spectral norm.

    Attributes:
        left: left singular vectors, shape (rows, full rank).
        values: singular values in descending order, shape (full rank,).
        right: right singular vectors, shape (full rank, columns).

    Reference: Eckart and Young, "The approximation of one matrix by another of lower rank",
    Psychometrika 1936; Mirsky, "Symmetric gauge functions and unitarily invariant norms",
    Quarterly Journal of Mathematics 1960.
    """

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> Decomposition:
        """Decompose a matrix of finite numbers."""
        return cls(*np.linalg.svd(matrix.astype("float64"), full_matrices=False))

    @property
    def full_rank(self) -> int:
        """The number of singular values."""
        return len(self.values)

    @cached_property
    def squared_errors(self) -> np.ndarray:
        """The share of the squared singular values that a rank drops, by rank from 0 on."""
        # Summed from the smallest, so that small tails are not lost in the sum.
        tails = np.append(np.cumsum(self.values[::-1] ** 2)[::-1], 0.0)
        return tails / tails[0] if tails[0] > 0 else tails

    def rank_of(self, energy: float) -> int:
        """The lowest rank, at least 1, that keeps this share of the squared singular values."""
        dropped = 1 - energy + _PRECISION**2
        return max(1, int(np.argmax(self.squared_errors <= dropped)))

    def spectral_error(self, rank: int) -> float:
        """The largest singular value that is dropped: the spectral norm of the difference."""
        return float(self.values[rank]) if rank < self.full_rank else 0.0

    def residual(self, rank: int) -> np.ndarray:
        """The difference between the matrix and its approximation."""
        return (self.left[:, rank:] * self.values[rank:]) @ self.right[rank:]

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices whose product is the approximation, each with the roots of the values.

        An even split keeps the two at one scale, so that one learning rate suits both.
        """
        roots = np.sqrt(self.values[:rank])
        return self.left[:, :rank] * roots, roots[:, None] * self.right[:rank]
