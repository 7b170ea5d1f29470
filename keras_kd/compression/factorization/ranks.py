"""The ranks to keep: given ones, by energy, or those that fit into a number of parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter, itemgetter

from keras_kd._checks import problem
from keras_kd.compression.factorization.candidate import Candidate, Option

# By the name of a layer: what to do with it, or why it stays as it is.
Decisions = dict[str, Option | str]


def by_rank(candidates: Sequence[Candidate], ranks: Mapping[str, int]) -> Decisions:
    """The given ranks, each in the form with the smaller error."""
    decisions: Decisions = {}
    for candidate in candidates:
        options = candidate.of_rank(ranks[candidate.name])
        saving = [option for option in options if candidate.saves(option)]
        decisions[candidate.name] = (
            min(saving, key=attrgetter("squared_error"))
            if saving
            else _nothing_saved(candidate, min(options, key=attrgetter("parameters")))
        )
    return decisions


def by_energy(candidates: Sequence[Candidate], energy: float) -> Decisions:
    """The lowest ranks that keep the energy, each in the form with fewer parameters."""
    decisions: Decisions = {}
    for candidate in candidates:
        option = min(candidate.of_energy(energy), key=attrgetter("parameters"))
        saves = candidate.saves(option)
        decisions[candidate.name] = option if saves else _nothing_saved(candidate, option)
    return decisions


def _nothing_saved(candidate: Candidate, option: Option) -> str:
    return (
        f"rank {option.rank} of {option.decomposition.full_rank} takes {option.parameters:,}"
        f" weights, the kernel {candidate.kernel.size:,}"
    )


def by_parameters(candidates: Sequence[Candidate], before: int, target: int) -> Decisions:
    """The ranks that keep most while the model has at most `target` parameters.

    What is kept is the product over all layers of the shares of the squared singular values, as
    what one layer drops the next ones cannot bring back (Zhang et al., "Accelerating very deep
    convolutional networks for classification and detection", IEEE TPAMI 2016); no layer is reduced
    to nothing for the sake of others. Step by step the layer that loses least for each parameter
    saved becomes smaller, along the lower convex hull of its options; the last step goes only as
    far as it must. Up to that last step no other choice with as few parameters keeps more, and a
    smaller target makes no layer larger.

    Args:
        candidates: the layers that may be factorized.
        before: how many parameters the model has.
        target: how many it may have.

    Raises:
        ValueError: if rank 1 everywhere takes more; the message names the number.

    Reference for the convex hull: Everett, "Generalized Lagrange multiplier method for solving
    problems of optimum allocation of resources", Operations Research 1963.
    """
    excess = before - target
    sizes = {candidate.name: candidate.kernel.size for candidate in candidates}
    decisions: Decisions = dict.fromkeys(sizes, "the target is met without it")
    steps = itertools.chain.from_iterable(map(_steps, candidates))
    for _, candidate, option in sorted(steps, key=itemgetter(0)):
        if excess <= 0:
            return decisions
        saved = sizes[candidate.name] - option.parameters
        if saved > excess:
            option = _least_lossy(candidate, sizes[candidate.name] - excess)
            saved = sizes[candidate.name] - option.parameters
        excess -= saved
        sizes[candidate.name] = option.parameters
        decisions[candidate.name] = option
    if excess > 0:
        raise problem(
            f"target_parameters={target:,} for a student of {before:,} parameters",
            f"at least {target + excess:,}, which rank 1 in every chosen layer takes",
            "raise the target, choose more layers, or build a smaller student",
        )
    return decisions


def _least_lossy(candidate: Candidate, size: int) -> Option:
    fitting = (option for option in candidate.savings if option.parameters <= size)
    return min(fitting, key=lambda option: (option.loss, option.parameters))


def _steps(candidate: Candidate) -> list[tuple[float, Candidate, Option]]:
    """The options on the lower convex hull, from the largest: (loss per parameter, .., option)."""
    points = [(candidate.kernel.size, 0.0)]
    steps: list[tuple[float, Candidate, Option]] = []
    for option in sorted(candidate.savings, key=lambda option: (-option.parameters, option.loss)):
        size, loss = option.parameters, option.loss
        while (slope := _slope(points[-1], (size, loss))) is not None and (
            steps and steps[-1][0] >= slope
        ):
            steps.pop()
            points.pop()
        if slope is not None:
            steps.append((slope, candidate, option))
            points.append((size, loss))
    return steps


def _slope(larger: tuple[int, float], smaller: tuple[int, float]) -> float | None:
    """How much is lost for each parameter saved; None if none is saved."""
    saved = larger[0] - smaller[0]
    return (smaller[1] - larger[1]) / saved if saved else None
