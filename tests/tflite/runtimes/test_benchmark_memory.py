import os
import resource

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite.runtimes import benchmark
from keras_kd.tflite.runtimes.benchmark import measure_memory, smallest_model

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def wide():
    """A file with 8 MB of weights."""
    student = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(2000)])
    return tflite.convert(student)


def test_the_process_is_a_fresh_one(float_model):
    measured = measure_memory(float_model.content, [np.zeros((1, 8, 8, 1), np.float32)], "xnnpack")
    # Linux would hand down the peak of this process, TensorFlow included.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert measured.peak_bytes < own / 2
    assert 0 <= measured.model_bytes < 4 * MEGABYTE < measured.peak_bytes


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_weights_are_counted(wide, kernels):
    measured = measure_memory(wide.content, [np.zeros((1, 1000), np.float32)], kernels)
    assert 8 * MEGABYTE <= measured.model_bytes < 40 * MEGABYTE


def test_sequences_of_the_length_that_is_fed(float_model):
    content = _of_any_length()
    short, long = (
        measure_memory(content, [np.zeros((1, length, 8), np.float32)], "builtin").model_bytes
        for length in (8, 80_000)
    )
    assert long > short + 2 * MEGABYTE


def _of_any_length():
    import tensorflow as tf

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, None, 8))])
        def run(self, x):
            return tf.nn.relu(x)

    module = Module()
    concrete = module.run.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.tempfile, "tempdir", str(tmp_path))
    measure_memory(smallest_model(), [np.ones(1, np.float32)], "xnnpack")
    assert os.listdir(tmp_path) == []


def test_a_process_that_fails_says_why():
    with pytest.raises(ValueError, match=r"cannot be measured \(Received .* LiteRT cannot load"):
        measure_memory(b"not a model", [np.ones(1, np.float32)], "xnnpack")


def test_a_process_that_does_not_end(monkeypatch):
    monkeypatch.setattr(benchmark, "_MOST_SECONDS", 0.01)
    with pytest.raises(ValueError, match=r"cannot be measured \(it took over 0.01 seconds"):
        measure_memory(smallest_model(), [np.ones(1, np.float32)], "xnnpack")


def test_the_smallest_model_runs_in_all_kernels():
    model = tflite.TFLiteModel(smallest_model())
    assert model.size < 400
    for kernels in ("xnnpack", "builtin"):
        result = model.predict(np.array([3.0, -2.0], np.float32), kernels)
        np.testing.assert_array_equal(result, [3.0, 0.0])
