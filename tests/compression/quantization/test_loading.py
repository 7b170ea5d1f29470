import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras

from keras_kd.compression import load_quantization_aware, quantization_summary, quantize_aware


def student(activation):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation=activation, name="dense"),
            keras.layers.Dense(2),
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    # tf_keras does not read functions that it does not have from .h5 files.
    ("name", "activation"),
    [("student.keras", "hard_silu"), ("student.h5", "gelu")],
)
def test_another_process_reads_what_this_one_has_written(tmp_path, name, activation):
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    aware = quantize_aware(student(activation), x, input_range=(-4, 4))
    aware.save(tmp_path / name)
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy, keras_kd; "
        "student = keras_kd.compression.load_quantization_aware(sys.argv[1]); "
        "numpy.save(sys.argv[3], student(numpy.load(sys.argv[2]), training=False)); "
        "print(keras_kd.compression.quantization_summary(student))"
    )
    paths = [str(tmp_path / each) for each in (name, "x.npy", "y.npy")]
    result = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(quantization_summary(aware))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), aware(x, training=False))


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing.keras.*a saved student"):
        load_quantization_aware(tmp_path / "nothing.keras")
    plain = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Dense(1)])
    plain.save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match=r"without a quantized layer.*load_model"):
        load_quantization_aware(tmp_path / "plain.keras")
