import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

from keras_kd.compression import (
    MByN,
    PolynomialSchedule,
    load,
    prune,
    quantize_aware,
    summary,
    to_tf_keras,
)


def dense():
    return keras.Sequential([keras.Input((8,)), layers.Dense(4, name="dense")])


def fit(pruned):
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    callbacks = pruned.training_callbacks()
    pruned.fit(x, x[:, :4], batch_size=4, verbose=0, callbacks=callbacks)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("name", ["student.keras", "student.h5"])
def test_a_student_goes_on_where_it_was_saved(tmp_path, name):
    pruned = prune(dense(), schedule=PolynomialSchedule(end_step=8, power=1), pattern=MByN(2, 4))
    with pytest.warns(UserWarning, match="less sparse than requested"):
        fit(pruned)
    # Half of the way to two of four.
    assert summary(pruned).sparsity == 0.25
    pruned.save(tmp_path / name)
    loaded = load(tmp_path / name)
    assert loaded.layers[-1].pruning_step == 4
    for one, other in zip(pruned.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    fit(loaded)
    assert summary(loaded).sparsity == 0.5
    kernel = loaded.layers[-1].layer.kernel.numpy()
    assert ((kernel.T.reshape(4, 2, 4) == 0).sum(-1) == 2).all()


def test_a_student_that_was_saved_before_training_has_an_open_schedule(tmp_path):
    prune(dense(), 0.5).save(tmp_path / "student.keras")
    loaded = load(tmp_path / "student.keras")
    assert loaded.layers[-1].pruning_schedule.is_open
    fit(loaded)
    assert summary(loaded).sparsity == 0.5


def test_layers_of_users_are_named_on_loading(tmp_path):
    class Own(tf_keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight("kernel", (shape[-1], 4))

        def call(self, inputs):
            return inputs @ self.kernel

        def get_prunable_weights(self):
            return [self.kernel]

    student = tf_keras.Sequential([tf_keras.Input((8,)), Own(name="own")])
    pruned = prune(student, 0.5)
    fit(pruned)
    pruned.save(tmp_path / "student.keras")
    loaded = load(tmp_path / "student.keras", {"Own": Own})
    assert summary(loaded).sparsities == {"own": 0.5}


def student(activation):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation=activation, name="dense"),
            keras.layers.Dense(2, name="scores"),
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
        "student = keras_kd.compression.load(sys.argv[1]); "
        "numpy.save(sys.argv[3], student(numpy.load(sys.argv[2]), training=False)); "
        "print(keras_kd.compression.summary(student))"
    )
    paths = [str(tmp_path / each) for each in (name, "x.npy", "y.npy")]
    result = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(summary(aware))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), aware(x, training=False))


def test_a_twin_with_layers_of_keras_3_loads(tmp_path):
    inputs = keras.Input((4, 4))
    twin = to_tf_keras(keras.Model(inputs, layers.RMSNormalization()(inputs) + inputs))
    twin.save(tmp_path / "twin.keras")
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32")
    np.testing.assert_array_equal(load(tmp_path / "twin.keras")(x), twin(x))


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.keras', which does not exist"):
        load(tmp_path / "nothing.keras")
    (tmp_path / "damaged.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"damaged\.keras', which cannot be read.*keras\.models"):
        load(tmp_path / "damaged.keras")
    dense().save(tmp_path / "keras_3.keras")
    with pytest.raises(ValueError, match=r"keras_3\.keras', which cannot be read.*keras\.models"):
        load(tmp_path / "keras_3.keras")
