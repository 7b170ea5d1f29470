"""Models read as calls."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kd.compression import strip, to_tf_keras
from keras_kd.compression.bridge.graph import read

X = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden, self.head = layers.Dense(3), layers.Dense(2)

    def call(self, inputs):
        return self.head(ops.relu(self.hidden(inputs)))


class Saved(Subclassed):
    def get_config(self):
        return {"name": self.name}


def test_what_the_error_on_subclassed_models_advises_works():
    student = Subclassed(name="mine")
    student(X)
    with pytest.raises(ValueError, match=r"subclassed model 'mine'.*model.call\(inputs\)"):
        to_tf_keras(student)
    inputs = keras.Input((4,))
    functional = keras.Model(inputs, student.call(inputs))
    np.testing.assert_array_equal(functional(X), student(X))
    np.testing.assert_allclose(to_tf_keras(functional)(X), student(X), rtol=1e-5, atol=1e-6)


def test_a_subclassed_model_inside_another_is_kept_as_a_layer():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Saved(name="inner")(inputs)))
    rebuilt = to_tf_keras(model)
    assert [layer.name for layer in rebuilt.layers[1:2]] == ["inner"]
    np.testing.assert_allclose(rebuilt(X), model(X), rtol=1e-6)
    back = strip(rebuilt)
    assert type(back.get_layer("inner")) is Saved
    np.testing.assert_array_equal(back(X), model(X))


def test_names_are_unique_also_where_the_models_around_make_them_equal():
    def inner(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, layers.Dense(4, name="b_c")(inputs), name=name)

    inputs = keras.Input((4,), name="b_c")
    outputs = layers.Dense(4, name="a_b_c")(inner("a")(inner("other")(inputs)))
    model = keras.Model(inputs, outputs)
    names = list(read(model).names().values())
    assert len({*names, "b_c"}) == 4
    np.testing.assert_allclose(to_tf_keras(model)(X), model(X), rtol=1e-5, atol=1e-6)


def test_weights_go_by_names_where_flattening_changes_the_order_of_layers(assert_same_step):
    def inner(name):
        stack = [layers.Dense(4, name="first"), layers.Dense(4, name="second")]
        return keras.Sequential([keras.Input((4,)), *stack], name=name)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, [inner("left")(inputs), inner("right")(inputs)])
    assert_same_step(model, X)
    order = [layer.name for layer in strip(to_tf_keras(model)).layers[1:]]
    assert order == ["left_first", "right_first", "left_second", "right_second"]


def test_operations_are_calls_of_their_tensors_only():
    inputs = keras.Input((4,))
    graph = read(keras.Model(inputs, 1 - inputs * 2.0))
    assert [len(call.operands()) for call in graph.calls] == [1, 1]
    assert [call.layer.name for call in graph.calls] == list(graph.names().values())
