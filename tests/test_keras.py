"""What is private to either Keras: kinds of models, checks, wrappers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import _backends, _keras, _logits


@pytest.fixture(scope="module")
def tf_keras():
    return _keras.tf_keras()


def test_models_of_both_are_told_apart(student, tf_keras):
    old = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(1)])
    assert _keras.is_keras_model(student)
    assert not _keras.is_tf_keras_model(student)
    assert _keras.is_tf_keras_model(old)
    assert not _keras.is_keras_model(old)
    assert _keras.check_model("student", old) is old


def test_anything_else_is_refused():
    with pytest.raises(
        ValueError,
        match=r"Received model=3 of type builtins.int. Expected a keras.Model or a tf_keras.Model",
    ):
        _keras.check_model("model", 3)
    with pytest.raises(ValueError, match=r"model=array\(.{,80}\.\.\. of type numpy") as error:
        _keras.check_model("model", np.zeros((9, 9, 9)))
    assert "\n" not in str(error.value)


def test_another_backend_is_refused(monkeypatch):
    _backends.check_backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    with pytest.raises(
        ValueError, match=r"Received the Keras backend 'openvino'.*KERAS_BACKEND=tensorflow"
    ):
        _backends.check_backend()


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("way", ["eager", "graph", "tf_keras", "tensorflow operation"])
def test_activations_are_seen(name, way, tf_keras):
    logits = tf.constant([[1.0, 2.0, -3.0]])
    function = {
        "eager": getattr(keras.activations, name),
        "graph": getattr(keras.ops, name),
        "tf_keras": getattr(tf_keras.activations, name),
        "tensorflow operation": getattr(tf.nn, name),
    }[way]
    seen = []

    def look(tensor):
        seen.append(_logits.recognise_logits(function(tensor)).activation)
        return _logits.recognise_logits(function(tensor)).logits

    # TensorFlow's own functions leave no trace outside of a graph.
    result = look(logits) if way in ("eager", "tf_keras") else tf.function(look)(logits)
    np.testing.assert_array_equal(result, logits)
    assert seen == [name]


def test_logits_are_what_they_are():
    logits = tf.constant([[1.0, 2.0]], "float16")
    seen = _logits.recognise_logits(logits)
    assert seen.activation is None
    assert seen.logits.dtype == "float32"
    assert _logits.recognise_logits(np.array([[1.0]])).logits.dtype == "float64"


def test_a_hidden_softmax_that_feeds_something_else_is_not_the_output():
    hidden = keras.ops.softmax(tf.constant([[1.0, 2.0]]))
    assert _logits.recognise_logits(hidden * 2.0).activation is None


def test_activations_that_cannot_be_told_apart_are_left_open():
    undecided = keras.ops.sigmoid(tf.zeros((1, 2)))
    assert _logits.recognise_logits(undecided).activation is None
    assert _logits.recognise_logits(keras.ops.sigmoid(tf.zeros((1, 1)))).activation == "sigmoid"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_activations_are_seen_in_every_precision(name, dtype):
    logits = tf.cast(np.random.default_rng(0).normal(scale=5.0, size=(8, 1000)), dtype)
    assert _logits.recognise_logits(getattr(keras.ops, name)(logits)).activation == name


def test_a_softmax_over_another_axis_is_seen_as_such():
    logits = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 4)))
    assert (
        _logits.recognise_logits(keras.ops.softmax(logits, axis=1)).activation == _logits.OTHER_AXIS
    )


def test_rows_that_could_be_distributions():
    rows = np.array([[0.3, 0.7], [0.3, 0.3], [-0.5, 1.5]], "float32")
    np.testing.assert_array_equal(_logits.distribution_like(rows), [True, False, False])


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("quant_dense", "dense"),
        ("prune_low_magnitude_a", "a"),
        ("cluster_b", "b"),
        ("dense", "dense"),
    ],
)
def test_original_names(name, original):
    assert _keras.original_name(name) == original


@pytest.mark.parametrize(
    ("policy", "half"), [("mixed_float16", True), ("mixed_bfloat16", False), ("float32", False)]
)
def test_float16_is_found_in_any_layer(policy, half):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype=policy)])
    assert _keras.computes_in_float16(model) == half
