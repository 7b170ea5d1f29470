import time

import numpy as np
import pytest

from keras_kd.tflite.runtimes.latency import measure_microseconds, summarized


class Recorder:
    """Actions that note when they are called."""

    def __init__(self):
        self.calls = []

    def action(self, name):
        return lambda: self.calls.append(name)


def test_actions_take_turns():
    recorder = Recorder()
    times = measure_microseconds([recorder.action("a"), recorder.action("b")], 25)
    assert [len(row) for row in times] == [25, 25]
    # Two that are not counted, then ten turns of two or three and one that is not counted.
    calls = "".join(recorder.calls)
    assert calls.startswith("aabb" + "aaaabbbb")
    assert calls.count("a") == calls.count("b") == 2 + 10 + 25
    assert calls.count("ab") == 11


@pytest.mark.parametrize("runs", [1, 3, 10, 99])
def test_every_run_is_measured(runs):
    recorder = Recorder()
    (times,) = measure_microseconds([recorder.action("a")], runs)
    assert times.shape == (runs,)
    assert np.isfinite(times).all()
    assert (times >= 0).all()
    assert len(recorder.calls) == runs + min(10, runs) + runs // 10


def test_the_unit_is_microseconds():
    (times,) = measure_microseconds([lambda: time.sleep(0.002)], 3)
    assert times.min() >= 2000


def test_what_is_told_of_many_runs():
    latency = summarized(np.array([1.0, 2.0, 3.0, 4.0, 90.0]), threads=2, kernels="builtin")
    assert (latency.median, latency.mean) == (3.0, 20.0)
    assert latency.p95 == pytest.approx(72.8)
    assert (latency.runs, latency.threads, latency.kernels) == (5, 2, "builtin")


def test_how_far_the_tenths_of_the_runs_are_apart():
    times = np.full(200, 37.0)
    assert summarized(times, 1, "builtin").spread == 1
    times[::25] = 8912.0  # Single ones are in no median.
    assert summarized(times, 1, "builtin").spread == 1
    times[40:60] = 8912.0
    assert summarized(times, 1, "builtin").spread == pytest.approx(8912 / 37)
