"""How long something takes, measured with a clock that never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """How long one example takes, in microseconds.

    Attributes:
        median: half of the runs took at most this long.
        mean: the average run.
        p95: 95 % of the runs took at most this long.
        runs: how many runs were measured.
        threads: how many threads LiteRT was given.
        kernels: "xnnpack" or "builtin".
    """

    median: float
    mean: float
    p95: float
    runs: int
    threads: int
    kernels: str


def measure_microseconds(action: Callable[[], None], runs: int) -> np.ndarray:
    """The duration of each of `runs` calls, after a tenth as many that are not counted."""
    for _ in range(1 + runs // 10):
        action()
    nanoseconds = np.empty(runs)
    for index in range(runs):
        start = time.perf_counter_ns()
        action()
        nanoseconds[index] = time.perf_counter_ns() - start
    return nanoseconds / 1000
