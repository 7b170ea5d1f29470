"""Operations between layers: kept as they are, or the layer that computes the same."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers, ops

from keras_kd.compression import strip, to_tf_keras
from keras_kd.compression.bridge.graph import read

X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")


def model_of(function):
    inputs = keras.Input((4, 6))
    return keras.Model(inputs, function(inputs))


KEPT = {
    "constant on the right": lambda x: x * 2.0 + 1,
    "constant on the left": lambda x: 1 - 2 / (ops.abs(x) + 3),
    "constant array": lambda x: x + np.arange(6, dtype="float32"),
    "last index": lambda x: x[:, 0],
    "slices and new axis": lambda x: x[:, 1:, ..., None],
    "several results": lambda x: ops.split(x, 2, axis=-1)[1],
    "axis and keepdims": lambda x: ops.mean(x, axis=[1, 2], keepdims=True),
    "reshape": lambda x: ops.reshape(x, (-1, 24)),
    "einsum of itself": lambda x: ops.einsum("bij,bkj->bik", x, x),
    "tensors by name": lambda x: ops.where(condition=x > 0, x1=x, x2=0.1 * x),
    "tensors in a list": lambda x: ops.stack([x, -x], axis=1),
    "cast": lambda x: ops.cast(x > 0, "int32"),
    "softmax over another axis": lambda x: ops.softmax(x, axis=1),
    "other ranks": lambda x: x + x[0],
}


@pytest.mark.parametrize("function", KEPT.values(), ids=KEPT.keys())
def test_operations_compute_the_same_there_and_back(function):
    model = model_of(function)
    rebuilt = to_tf_keras(model)
    back = strip(rebuilt)
    expected = model(X).numpy()
    np.testing.assert_array_equal(rebuilt(X).numpy(), expected)
    np.testing.assert_array_equal(back(X).numpy(), expected)
    assert {type(layer).__name__ for layer in rebuilt.layers} >= {"OperationLayer"}
    kinds = [type(call.layer._operation) for call in read(model).calls]
    assert [type(call.layer._operation) for call in read(back).calls] == kinds


EQUAL = {
    "add": lambda x: x + ops.flip(x, 1),
    "subtract": lambda x: x - ops.flip(x, 1),
    "multiply": lambda x: x * x,
    "maximum": lambda x: ops.maximum(x, ops.flip(x, 1)),
    "minimum": lambda x: ops.minimum(x, ops.flip(x, 1)),
    "concatenate": lambda x: ops.concatenate([x, x], axis=1),
    "relu": ops.relu,
    "relu6": ops.relu6,
    "sigmoid": ops.sigmoid,
    "softmax": ops.softmax,
    "silu": ops.silu,
}


@pytest.mark.parametrize(("name", "function"), EQUAL.items())
def test_an_operation_with_an_equal_layer_becomes_that_layer(name, function):
    rebuilt = to_tf_keras(model_of(function))
    last = rebuilt.layers[-1]
    assert type(last).__module__.startswith("tf_keras.")
    assert last.name.startswith(name)
    np.testing.assert_allclose(rebuilt(X), model_of(function)(X), rtol=1e-6, atol=1e-6)


def test_masks_end_at_operations_as_in_keras_3():
    words = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(6, 3, mask_zero=True)(words)
    doubled = embedded + embedded
    model = keras.Model(words, layers.LSTM(2)(doubled))
    x = np.array([[1, 2, 0, 0, 0]])
    np.testing.assert_allclose(to_tf_keras(model)(x), model(x), rtol=1e-5, atol=1e-6)


def test_operations_of_a_nested_model_that_is_called_twice():
    inner_inputs = keras.Input((6,))
    inner = keras.Model(inner_inputs, layers.Dense(3)(inner_inputs) * 2.0, name="inner")
    left, right = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([left, right], inner(left) - inner(right))
    rebuilt = to_tf_keras(model)
    inputs = [X[:, 0], X[:, 1]]
    np.testing.assert_allclose(rebuilt(inputs), model(inputs), rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in rebuilt.layers].count("multiply") <= 1
    np.testing.assert_allclose(strip(rebuilt)(inputs), model(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_operations_are_saved_and_loaded(tmp_path, ending):
    rebuilt = to_tf_keras(model_of(lambda x: (1 - x)[:, 1:, None]))
    rebuilt.save(tmp_path / f"model{ending}")
    loaded = tf_keras.models.load_model(tmp_path / f"model{ending}")
    np.testing.assert_array_equal(loaded(X), rebuilt(X))


def test_an_operation_that_keras_cannot_save_is_named():
    class Unsaved(keras.Operation):
        def __init__(self, thing):
            super().__init__(name="odd")
            self.thing = thing

        def call(self, x):
            return x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    with pytest.raises(ValueError, match=r"'odd' of class Unsaved.*Keras can save and load"):
        to_tf_keras(model_of(Unsaved(object())))
