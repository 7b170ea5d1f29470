"""Confidence intervals over the choice of test examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keras_kd.metrics.statistics import Statistic

CONFIDENCE = 0.95
# The quantile of the normal distribution that leaves 2.5 % above it.
_Z = 1.959963984540054
_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A measured number with its interval of 95 % confidence.

    Attributes:
        value: the number.
        low: where the interval begins; NaN where there is none, as with a single example.
        high: where it ends.
        difference: how much more it is than the baseline's; None for the baseline itself.
    """

    value: float
    low: float
    high: float
    difference: Estimate | None = None

    @property
    def is_clear(self) -> bool:
        """Of a difference: whether its interval leaves out 0."""
        return self.low > 0 or self.high < 0


def estimate(
    statistics: Mapping[str, Statistic], baseline: str | None, examples: int, seed: int = 0
) -> dict[str, Estimate]:
    """The values of one measure for several models, tested on the same examples.

    Shares of right examples have Wilson's interval, and their differences the one of Agresti and
    Min. All other measures are computed again on 1,000 samples of as many examples, drawn with
    replacement, the same ones for all models (paired percentile bootstrap: Efron and Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 13).

    Args:
        statistics: the measure of each model, by name.
        baseline: the name of the model that the others are compared with; None: no differences.
        examples: how many examples there are.
        seed: for the samples.
    """
    values = {name: statistic.value(examples) for name, statistic in statistics.items()}
    hits = {name: one.hits for name, one in statistics.items() if one.hits is not None}
    are_shares = len(hits) == len(statistics)
    samples: dict[str, np.ndarray] = {}
    if are_shares:
        spans = {name: wilson(int(values.sum()), examples) for name, values in hits.items()}
    else:
        samples = _resampled(statistics, examples, seed)
        spans = {name: _percentiles(sample) for name, sample in samples.items()}
    found = {}
    for name, value in values.items():
        difference = None
        if baseline is not None and baseline in statistics and name != baseline:
            if are_shares:
                first, second = hits[baseline], hits[name]
                span = paired_shares(
                    int(np.sum(second > first)), int(np.sum(first > second)), examples
                )
            else:
                span = _percentiles(samples[name] - samples[baseline])
            difference = Estimate(value - values[baseline], *span)
        found[name] = Estimate(value, *spans[name], difference)
    return found


def wilson(hits: int, examples: int) -> tuple[float, float]:
    """The interval of a share, which stays inside 0 to 1 and is right for few examples, too.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22, 1927.
    """
    share, z2 = hits / examples, _Z**2 / examples
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / examples + z2 / (4 * examples))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_shares(gained: int, lost: int, examples: int) -> tuple[float, float]:
    """The interval of the difference of two shares that were counted on the same examples.

    It looks, as McNemar's test does, at the examples that only one of the two gets right. A.
    Agresti and Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 2005: Wald's interval after half an example was added to each cell of
    the table of pairs.

    Args:
        gained: how many examples only the second gets right.
        lost: how many only the first gets right.
        examples: how many there are.
    """
    more, less, total = gained + 0.5, lost + 0.5, examples + 2
    middle = (more - less) / total
    half = _Z * math.sqrt(more + less - (more - less) ** 2 / total) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _resampled(
    statistics: Mapping[str, Statistic], examples: int, seed: int
) -> dict[str, np.ndarray]:
    """The values of the samples; none is defined where a single example cannot vary."""
    if examples < 2:
        return {name: np.full(_RESAMPLES, np.nan) for name in statistics}
    generator = np.random.default_rng(seed)
    samples = np.empty((_RESAMPLES, len(statistics)))
    for row in samples:
        drawn = generator.integers(0, examples, examples)
        weights = np.bincount(drawn, minlength=examples).astype("float64")
        row[:] = [statistic.of(weights) for statistic in statistics.values()]
    return dict(zip(statistics, samples.T, strict=True))


def _percentiles(sample: np.ndarray) -> tuple[float, float]:
    """The middle 95 %; without it where more than a tenth of the samples is undefined."""
    defined = sample[np.isfinite(sample)]
    if len(defined) < 0.9 * len(sample):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
