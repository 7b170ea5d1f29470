import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import keras_kd.compression
from keras_kd.compression import prune, strip


def run_python(code):
    """What `code` prints in a new process, without the variable that importing TF-MOT sets."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_keras_model_is_returned_as_it_is():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert strip(model) is model


def test_a_plain_tf_keras_model_becomes_a_keras_model_with_its_names_and_weights():
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Conv2D(3, 2, activation="swish", name="conv", input_shape=(4, 4, 1)),
            tf_keras.layers.LeakyReLU(0.3, name="leaky"),
            tf_keras.layers.DepthwiseConv2D(2, name="depthwise"),
            tf_keras.layers.BatchNormalization(name="normalization"),
        ]
    )
    stripped = strip(model)
    assert isinstance(stripped, keras.Model)
    assert [layer.name for layer in stripped.layers[1:]] == [layer.name for layer in model.layers]
    assert stripped.get_layer("leaky").negative_slope == 0.3
    for one, other in zip(model.get_weights(), stripped.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype("float32")
    np.testing.assert_allclose(model(x).numpy(), stripped(x).numpy(), atol=1e-6)


def test_a_layer_without_a_counterpart_is_named():
    model = tf_keras.Sequential(
        [tf_keras.layers.LocallyConnected1D(2, 2, name="odd", input_shape=(4, 3))]
    )
    with pytest.raises(ValueError, match=r"layer 'odd' of class .*LocallyConnected1D"):
        strip(model)


def test_what_is_no_model():
    with pytest.raises(ValueError, match="Received student=3"):
        strip(3)


@pytest.mark.slow
def test_the_stripped_model_loads_where_keras_kd_is_not(tmp_path):
    student = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, activation="hard_silu"), layers.Dense(2)]
    )
    path = tmp_path / "student.keras"
    strip(prune(student, 0.5)).save(path)
    code = (
        "import sys; sys.modules['keras_kd'] = None; import keras;"
        f" print(keras.models.load_model({str(path)!r}).count_params(), 'tf_keras' in sys.modules)"
    )
    assert run_python(code).split() == [str(student.count_params()), "False"]


def test_importing_the_room_imports_neither_tf_keras_nor_tf_mot():
    code = (
        "import sys, keras_kd.compression;"
        " print([name for name in ('tf_keras', 'tensorflow_model_optimization')"
        " if name in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_every_public_name_is_documented():
    for name in keras_kd.compression.__all__:
        assert getattr(keras_kd.compression, name).__doc__
