import json
import os

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.runtimes import litert


@pytest.fixture(scope="module")
def benchmark(float_model):
    return float_model.benchmark(runs=20)


def test_rows_are_with_and_without_xnnpack_on_one_and_all_cores(benchmark):
    cores = len(os.sched_getaffinity(0))
    settings = [(row.kernels, row.threads) for row in benchmark.latencies]
    counts = sorted({1, cores})
    assert settings == [(kind, count) for kind in ("xnnpack", "builtin") for count in counts]
    for row in benchmark.latencies:
        assert 0 < row.median <= row.p95
        assert row.runs == 20


def test_the_first_row_counts(benchmark):
    first = benchmark.latencies[0]
    assert (benchmark.median, benchmark.mean, benchmark.p95) == (
        first.median,
        first.mean,
        first.p95,
    )
    assert (benchmark.runs, benchmark.threads, benchmark.kernels) == (20, 1, "xnnpack")


def test_memory(benchmark):
    assert 0 <= benchmark.model_memory_bytes < benchmark.peak_memory_bytes < 300_000_000


def test_settings_can_be_chosen(micro_model, images):
    benchmark = micro_model.benchmark(5, threads=[2, 1], kernels="builtin", x=images)
    assert [(row.kernels, row.threads) for row in benchmark.latencies] == [
        ("builtin", 2),
        ("builtin", 1),
    ]
    assert "builtin        2" in str(benchmark)


def test_a_table_and_json(benchmark, float_model):
    lines = str(benchmark).splitlines()
    assert lines[0].split()[:2] == ["kernels", "threads"]
    end = 1 + len(benchmark.latencies)
    assert lines[end] == "20 runs each; XNNPACK runs the whole graph"
    # A line more where the machine had other work.
    assert len(lines) == end + 2 + bool(benchmark.doubtful)
    plain = benchmark.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["latencies"][0]["median"] == benchmark.median


def test_what_xnnpack_leaves_to_other_kernels_is_named():
    student = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(20, 8),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )
    words = np.zeros((1, 5), np.int32)
    benchmark = tflite.convert(student).benchmark(3, threads=1, x=words)
    assert "GATHER" in benchmark.outside_xnnpack
    assert "FULLY_CONNECTED" not in benchmark.outside_xnnpack
    assert f"everything but {', '.join(benchmark.outside_xnnpack)}\n" in str(benchmark)


@pytest.fixture(scope="module")
def of_any_length():
    layers = [keras.layers.Conv1D(4, 3), keras.layers.GlobalAveragePooling1D()]
    return tflite.convert(keras.Sequential([keras.Input((None, 8)), *layers]))


def test_a_file_for_sequences_of_any_length(of_any_length, capfd):
    x = np.zeros((2, 300, 8), np.float32)
    assert of_any_length.benchmark(3, threads=1).runs == 3
    assert of_any_length.benchmark(3, x=x, memory=False).runs == 3
    assert "[1, any, 8]" in str(of_any_length.inspect())
    assert capfd.readouterr() == ("", "")


def busy(monkeypatch, *times_of_the_second):
    """Let the second of two settings take so long, in turn; how often each was measured."""
    times, counts = list(times_of_the_second), []

    def measure(files, inputs, runs):
        counts.append(len(files))
        rows = [np.full(runs, 37.0) for _ in files]
        rows[-1][: runs // 2] = times.pop(0)
        return rows

    monkeypatch.setattr(litert, "measure", measure)
    return counts


def test_what_is_unsteady_is_measured_again(float_model, monkeypatch):
    counts = busy(monkeypatch, 8912.0, 40.0)
    benchmark = float_model.benchmark(20, threads=1)
    assert counts == [2, 1]
    assert benchmark.doubtful == ()
    assert benchmark.latencies[1].median < 40
    assert "*" not in str(benchmark)


def test_what_stays_unsteady_is_marked(float_model, monkeypatch):
    busy(monkeypatch, 8912.0, 500.0, 9000.0)
    benchmark = float_model.benchmark(20, threads=1)
    [doubtful] = benchmark.doubtful
    assert doubtful.spread == pytest.approx(500 / 37)
    assert f"{doubtful.median:,.1f}*" in str(benchmark).splitlines()[2]
    assert str(benchmark).endswith("measure it again")


def test_threads_that_are_much_slower_than_one_are_marked(float_model, monkeypatch):
    rows = [np.full(20, 37.0), np.full(20, 8912.0)]
    monkeypatch.setattr(litert, "measure", lambda *_: rows)
    benchmark = float_model.benchmark(20, threads=[1, 2], kernels="xnnpack")
    assert benchmark.doubtful == (benchmark.latencies[1],)
