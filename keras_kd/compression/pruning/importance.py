"""Importance of each group of channels; the least important are removed first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd.compression.pruning.channels import STAYS, Channels, Cut

# A name, or a function that gives a number for each filter of a layer.
Importance = str | Callable[[Any], Any]


def group_scores(channels: Channels, importance: Importance) -> dict[int, float]:
    """The score of each group that can go, higher where it matters more.

    A group has the mean score of the filters (or normalizations) in it. Groups without any are not
    in the result.

    Args:
        channels: of the student.
        importance: see `remove_filters`.

    Raises:
        ValueError: if `importance` is an unknown name, or a function whose result does not fit.
    """
    found: dict[int, list[float]] = {}
    for cut, scores in _scored_cuts(channels, importance):
        for group, score in zip(cut.groups.tolist(), scores.tolist(), strict=True):
            found.setdefault(group, []).append(score)
    found.pop(STAYS, None)
    return {group: float(np.mean(scores)) for group, scores in found.items()}


def _scored_cuts(channels: Channels, importance: Importance) -> Iterable[tuple[Cut, np.ndarray]]:
    if callable(importance):
        return [(cut, _called(importance, cut)) for cut in channels.writes]
    check_choice("importance", importance, ("l1", "l2", "batch_normalization"))
    if importance == "batch_normalization":
        scales = [cut for cut in channels.carries if cut.weight == "gamma"]
        return [(cut, np.abs(cut.values().astype("float64"))) for cut in scales]
    order = {"l1": 1, "l2": 2}[importance]
    return [(cut, _norms(cut, order)) for cut in channels.writes]


def _norms(cut: Cut, order: int) -> np.ndarray:
    """The norm of each filter, in units of the layer's mean: so can layers be compared."""
    filters = cut.values().astype("float64").reshape(len(cut.groups), -1)
    norms = np.linalg.norm(filters, order, axis=1)
    return norms / max(norms.mean(), np.finfo("float64").tiny)


def _called(importance: Callable[[Any], Any], cut: Cut) -> np.ndarray:
    scores = np.asarray(importance(cut.layer), "float64")
    if scores.shape != cut.groups.shape or not np.all(np.isfinite(scores)):
        raise problem(
            f"scores of shape {scores.shape} for layer {cut.layer.name!r}"
            + ("" if np.all(np.isfinite(scores)) else ", some of them not finite"),
            f"a finite number for each of its {len(cut.groups)} filters",
            "return one number per filter from `importance`",
        )
    return scores
