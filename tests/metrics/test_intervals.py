import math

import numpy as np
import pytest
from scipy import stats

from keras_kd.metrics import estimate
from keras_kd.metrics.intervals import paired_shares, wilson
from keras_kd.metrics.statistics import Statistic, area_under_curve, mean, share


@pytest.mark.parametrize(("hits", "examples"), [(0, 10), (7, 10), (291, 300), (300, 300), (1, 1)])
def test_wilson_as_scipy_has_it(hits, examples):
    expected = stats.binomtest(hits, examples).proportion_ci(method="wilson")
    assert wilson(hits, examples) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_pairs_by_hand():
    # Half an example more in each cell: 1.5 gained, 0.5 lost, of 302.
    middle = 1 / 302
    half = 1.959964 * math.sqrt(2 - 1 / 302) / 302
    assert paired_shares(1, 0, 300) == pytest.approx((middle - half, middle + half), rel=1e-6)
    low, high = paired_shares(0, 0, 300)
    assert low == -high
    assert 0.005 < high < 0.01


def test_pairs_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(0)
    # The truth: 8 % only the second gets right, 4 % only the first.
    drawn = generator.multinomial(200, [0.08, 0.04, 0.88], 2000)
    inside = 0
    for gained, lost, _ in drawn:
        low, high = paired_shares(gained, lost, 200)
        inside += low <= 0.04 <= high
    assert 0.935 < inside / 2000 < 0.97


def test_one_example_of_300_is_no_difference():
    first = np.ones(300)
    first[:10] = 0
    second = first.copy()
    second[0] = 1
    found = estimate({"first": share(first), "second": share(second)}, "first", 300)
    assert found["first"].difference is None
    difference = found["second"].difference
    assert difference.value == pytest.approx(1 / 300)
    assert not difference.is_clear
    assert difference.low < 0 < difference.value < difference.high
    second[:10] = 1
    assert estimate({"first": share(first), "second": share(second)}, "first", 300)[
        "second"
    ].difference.is_clear


def test_resampled_means_have_the_interval_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = estimate({"model": mean(values)}, None, 400)["model"]
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_resampled_differences_are_paired():
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = estimate({"first": mean(values), "second": mean(values + 0.01)}, "first", 400)
    # Unpaired, the interval of either is a hundred times as wide as the difference.
    assert found["second"].difference.low == pytest.approx(0.01)
    assert found["second"].difference.high == pytest.approx(0.01)
    assert found["second"].difference.is_clear
    assert found["second"].low < found["first"].value


def test_errors_of_0_and_1_are_no_shares():
    errors = np.array([0.0, 1.0] * 10)
    found = estimate({"first": mean(errors), "second": mean(errors)}, "first", 20)
    assert found["second"].difference.low == found["second"].difference.high == 0.0
    assert (found["first"].low, found["first"].high) != pytest.approx(wilson(10, 20))
    exact = estimate({"model": mean(np.zeros(20))}, None, 20)["model"]
    assert (exact.low, exact.high) == (0.0, 0.0)


def test_the_same_seed_gives_the_same_interval():
    statistics = {"model": mean(np.random.default_rng(0).normal(size=50))}
    assert estimate(statistics, None, 50) == estimate(statistics, None, 50)
    assert estimate(statistics, None, 50) != estimate(statistics, None, 50, seed=1)


def test_samples_that_leave_the_number_undefined():
    # Most samples of three lack an anomaly or everything else.
    few = area_under_curve(np.arange(3), np.array([0, 0, 1]))
    found = estimate({"model": few}, None, 3)["model"]
    assert found.value == 1.0
    assert math.isnan(found.low)
    never = estimate({"model": Statistic(lambda weights: float("nan"))}, None, 3)["model"]
    assert math.isnan(never.value)


def test_a_single_example_has_no_interval():
    found = estimate({"model": mean(np.array([3.5]))}, None, 1)["model"]
    assert found.value == 3.5
    assert math.isnan(found.low)
