"""Latency, measured with a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# What slows the machine down for a moment then slows every action down for a tenth of its runs.
_ROUNDS = 10


@dataclass(frozen=True)
class Latency:
    """How long one example takes, in microseconds.

    Attributes:
        median: half of the runs took at most this long.
        mean: the average run.
        p95: 95 % of the runs took at most this long.
        runs: how many runs were measured.
        threads: how many threads LiteRT was given.
        kernels: "xnnpack", "builtin" or "reference"; see `TFLiteModel.predict`.
        spread: how often the largest median of a tenth of the runs holds the smallest: 1 where all
            tenths took as long, more where something else ran on the machine.
    """

    median: float
    mean: float
    p95: float
    runs: int
    threads: int
    kernels: str
    spread: float = 1.0


def summarized(microseconds: np.ndarray, threads: int, kernels: str) -> Latency:
    """The durations of some runs in a few numbers."""
    return Latency(
        median=float(np.median(microseconds)),
        mean=float(np.mean(microseconds)),
        p95=float(np.percentile(microseconds, 95)),
        runs=len(microseconds),
        threads=threads,
        kernels=kernels,
        spread=_spread(microseconds),
    )


def _spread(microseconds: np.ndarray) -> float:
    if len(microseconds) < 2 * _ROUNDS:
        # A tenth of so few is a run or none.
        return 1.0
    medians = [float(np.median(part)) for part in np.array_split(microseconds, _ROUNDS)]
    return max(medians) / min(medians) if min(medians) > 0 else 1.0


def measure_microseconds(actions: Sequence[Callable[[], None]], runs: int) -> list[np.ndarray]:
    """How long each of several actions takes, in turns, so that they can be compared.

    Every turn begins with a run that is not counted: it finds the caches as another action left
    them. Before the first turn there are a tenth as many runs of each that are not counted either.

    Args:
        actions: what is measured.
        runs: how many runs of each are measured.

    Returns:
        For each action the durations of its runs in microseconds, shaped (runs,).
    """
    for action in actions:
        for _ in range(runs // 10):
            action()
    turns = np.array_split(np.arange(runs), min(_ROUNDS, runs))
    nanoseconds = np.empty((len(actions), runs))
    for turn in turns:
        for row, action in zip(nanoseconds, actions, strict=True):
            action()
            for index in turn:
                start = time.perf_counter_ns()
                action()
                row[index] = time.perf_counter_ns() - start
    return list(nanoseconds / 1000)
