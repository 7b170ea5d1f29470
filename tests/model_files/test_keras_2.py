"""`.h5` files of Keras 2 (tf_keras), loaded by Keras 3: the outputs are those of tf_keras."""

import json

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import keras_kd
from keras_kd import compression
from keras_kd._model_files import load_model
from keras_kd._model_files.keras_2 import modernized

from _models import cross_entropy

L = tf_keras.layers
IMAGE, SEQUENCE = (8, 8, 3), (6, 5)
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def stack(shape, *layers):
    return lambda: tf_keras.Sequential([tf_keras.Input(shape), *(layer() for layer in layers)])


def graph(shape, function):
    def build():
        inputs = tf_keras.Input(shape)
        return tf_keras.Model(inputs, function(inputs))

    return build


def with_states(inputs):
    sequence, *states = L.LSTM(4, return_sequences=True, return_state=True)(inputs)
    return L.LSTM(4)(sequence, initial_state=states)


def with_states_of_both_ways(inputs):
    layer = L.Bidirectional(L.LSTM(4, return_sequences=True, return_state=True))
    sequence, *states = layer(inputs)
    return L.Bidirectional(L.LSTM(4))(sequence, initial_state=states)


def inner(name, *outputs):
    inputs = tf_keras.Input((5,))
    made = [layer(inputs) for layer in outputs]
    return tf_keras.Model(inputs, made if len(made) > 1 else made[0], name=name)


def nested(inputs):
    first = tf_keras.Sequential([L.Dense(5, "relu", input_shape=(5,))], name="first")
    second = inner("second", L.Dense(5))
    return second(first(inputs))


def nested_twice(inputs):
    model = inner("twice", L.Dense(5, "tanh"))
    stacked = tf_keras.Sequential([L.Dense(5, "relu", input_shape=(5,))], name="stack")
    return stacked(stacked(model(model(inputs))))


def nested_with_two_outputs(inputs):
    model = inner("two", L.Dense(5, "tanh"), L.Dense(5))
    first, second = model(inputs)
    third, fourth = model(second)
    return [first, fourth, L.Add()([second, third])]


def with_slashes(inputs):
    hidden = L.DepthwiseConv2D(3, name="block/conv")(inputs)
    hidden = L.BatchNormalization(name="block_conv")(hidden)
    hidden = L.Conv2D(3, 1, name="block/conv/last")(hidden)
    return L.Dense(2, name="top/logits")(L.GlobalAveragePooling2D()(hidden))


def several():
    a, b = tf_keras.Input((5,), name="a"), tf_keras.Input((5,), name="b")
    shared = L.Dense(4)
    both = L.Subtract()([shared(a), shared(b)])
    return tf_keras.Model([a, b], [L.Dense(2)(both), L.Dense(1)(both)])


MODELS = {
    "DepthwiseConv2D": stack(IMAGE, lambda: L.DepthwiseConv2D(3, depth_multiplier=2)),
    "DepthwiseConv1D": stack(SEQUENCE, lambda: L.DepthwiseConv1D(3)),
    "SeparableConv2D": stack(IMAGE, lambda: L.SeparableConv2D(4, 3)),
    "SeparableConv1D": stack(SEQUENCE, lambda: L.SeparableConv1D(4, 3)),
    "Conv2DTranspose": stack(IMAGE, lambda: L.Conv2DTranspose(4, 3)),
    "Conv1DTranspose": stack(SEQUENCE, lambda: L.Conv1DTranspose(4, 3)),
    "Conv3DTranspose": stack((4, 4, 4, 2), lambda: L.Conv3DTranspose(2, 2)),
    "SpatialDropout2D": stack(IMAGE, lambda: L.SpatialDropout2D(0.5)),
    "RandomFlip": stack(IMAGE, lambda: L.RandomFlip()),
    "RandomRotation": stack(IMAGE, lambda: L.RandomRotation(0.1)),
    "RandomZoom": stack(IMAGE, lambda: L.RandomZoom(0.1)),
    "LSTM": stack(SEQUENCE, lambda: L.LSTM(4, implementation=1, go_backwards=True)),
    "LSTM unrolled": stack(SEQUENCE, lambda: L.LSTM(4, unroll=True, return_sequences=True)),
    "GRU": stack(SEQUENCE, lambda: L.GRU(4)),
    "GRU of Keras 1": stack(SEQUENCE, lambda: L.GRU(4, reset_after=False)),
    "SimpleRNN": stack(SEQUENCE, lambda: L.SimpleRNN(4)),
    "RNN of cells": stack(SEQUENCE, lambda: L.RNN([L.GRUCell(3), L.LSTMCell(4)])),
    "Bidirectional": stack(SEQUENCE, lambda: L.Bidirectional(L.GRU(4), merge_mode="sum")),
    "TimeDistributed": stack((4, *IMAGE), lambda: L.TimeDistributed(L.DepthwiseConv2D(3))),
    "MultiHeadAttention": graph(SEQUENCE, lambda x: L.MultiHeadAttention(2, 4)(x, x, key=x)),
    "Attention": graph(SEQUENCE, lambda x: L.Attention(use_scale=True)([x, x])),
    "initial states": graph(SEQUENCE, with_states),
    "initial states of both ways": graph(SEQUENCE, with_states_of_both_ways),
    "nested": graph((5,), nested),
    "nested, called twice": graph((5,), nested_twice),
    "nested, two outputs": graph((5,), nested_with_two_outputs),
    "slashes": graph(IMAGE, with_slashes),
    "slashes in a stack": lambda: tf_keras.Sequential(
        [L.Dense(3, name="a/b", input_shape=(5,)), L.Dense(2, name="a_b")], name="m/n"
    ),
    "several": several,
    "mixed precision": stack(
        IMAGE, lambda: L.DepthwiseConv2D(3, dtype="mixed_float16"), lambda: L.Flatten()
    ),
    "MobileNet": lambda: tf_keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, classes=3
    ),
}


def saved(model, path):
    """The model in a file, with weights that are all different; and inputs for it."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype.is_floating:
            weight.assign(generator.uniform(0.1, 0.4, weight.shape))
    model.save(path)
    x = [generator.normal(size=(2, *each.shape[1:])).astype("float32") for each in model.inputs]
    return x if len(x) > 1 else x[0]


SLOW = ("MobileNet", "Bidirectional", "initial states of both ways", "RNN of cells")


@pytest.mark.fast_rows(10)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MODELS],
)
def test_it_computes_what_tf_keras_does(name, tmp_path):
    tf_keras.backend.clear_session()
    model = MODELS[name]()
    x = saved(model, tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    expected, received = (keras.tree.flatten(one(x, training=False)) for one in (model, loaded))
    for one, other in zip(expected, received, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    # What was one tensor is none in a list.
    assert isinstance(loaded(x), list) == (len(model.outputs) > 1)
    assert [file.name for file in tmp_path.iterdir()] == ["model.h5"]


REFUSED = {
    "hard_sigmoid": (stack(IMAGE, lambda: L.Conv2D(2, 3, activation="hard_sigmoid")), "hard_sig"),
    "time_major": (stack(SEQUENCE, lambda: L.LSTM(4, time_major=True)), "time_major"),
    "only in Keras 2": (stack(IMAGE, lambda: L.ThresholdedReLU(0.5)), "'ThresholdedReLU'"),
    "operations": (graph((5,), lambda x: 2.0 * x), "'TFOpLambda'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_keras_3_has_not_is_refused_with_the_way_out(name, tmp_path):
    build, match = REFUSED[name]
    path = tmp_path / "model.h5"
    x = saved(build(), path)
    with pytest.raises(ValueError, match=rf"{match}.*load it with tf_keras.*model\.export"):
        load_model(path)
    if name == "operations":
        model = tf_keras.models.load_model(path)
        model.export(str(tmp_path / "model"))
        np.testing.assert_allclose(load_model(tmp_path / "model")(x), model(x), rtol=1e-6)


def old_form(config):
    """What Keras 2 wrote in its first years: without names of models, initializers with dtype."""
    for layer in config["config"]["layers"]:
        for option, value in layer["config"].items():
            if option.endswith("_initializer"):
                value["config"]["dtype"] = "float32"
        layer["config"].pop("reset_after", None)
    return {"class_name": "Sequential", "config": config["config"]["layers"][1:]}


def test_configs_of_the_first_years(tmp_path):
    model = tf_keras.Sequential(
        [L.GRU(4, reset_after=False, input_shape=SEQUENCE), L.Dense(2, kernel_regularizer="l2")]
    )
    path = tmp_path / "model.h5"
    x = saved(model, path)
    with h5py.File(path, "r+") as file:
        config = old_form(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.1.2"
    np.testing.assert_allclose(load_model(path)(x), model(x), rtol=1e-5)


def test_names_stay_unique_without_slashes():
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "m/n",
            "layers": [
                {"class_name": "Dense", "config": {"name": name, "units": 1}}
                for name in ("a_b", "a/b", "a/b_1", "a_b_1")
            ],
        },
    }
    names = [layer["config"]["name"] for layer in modernized(config)["config"]["layers"]]
    assert names[0] == "a_b"
    assert names[3] == "a_b_1"
    assert len(set(names)) == 4
    assert not any("/" in name for name in names)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("load", [load_model, keras.models.load_model])
def test_it_teaches_and_is_the_student_of_its_own_pruning(load, tmp_path):
    x = saved(
        graph((5,), lambda inputs: L.Dense(3)(L.Dense(4, "relu")(inputs)))(), tmp_path / "m.h5"
    )
    teacher = load(tmp_path / "m.h5")
    y = np.array([0, 1])
    loss = cross_entropy()
    pruned = compression.prune(teacher, 0.5, schedule=compression.PolynomialSchedule(end_step=1))
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    for taught in (student, pruned):
        distiller = keras_kd.Distiller(teacher, taught, missing_label=-1)
        distiller.compile("sgd", loss, run_eagerly=True)
        logs = distiller.evaluate(x, y, verbose=0, return_dict=True)
        assert logs["distillation_loss"] == pytest.approx(0, abs=1e-6)
        distiller.fit(x, y, verbose=0)
