"""Symbolic graphs: inputs, outputs and activations."""

import keras
import numpy as np

from keras_kd import _graphs


def kept_and(inputs, outputs):
    return keras.Model(inputs, outputs).operations[1:]


def test_shapes_of_models(student):
    assert _graphs.input_shapes(student) == [(None, 5)]
    assert tuple(_graphs.output_specs(student).shape) == (None, 3)


def test_shapes_of_subclassed_models():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.logits = keras.layers.Dense(3)

        def call(self, inputs):
            return {"logits": self.logits(inputs)}

    model = Subclassed()
    assert _graphs.input_shapes(model) is None
    assert _graphs.output_specs(model) is None
    model(np.zeros((2, 5), "float32"))
    assert tuple(_graphs.output_specs(model)["logits"].shape)[-1] == 3


def test_a_subclassed_model_that_cannot_be_traced_says_nothing():
    class Curious(keras.Model):
        def call(self, inputs):
            return inputs * float(np.asarray(inputs).sum())

    model = Curious()
    model(np.zeros((2, 5), "float32"))
    assert _graphs.output_specs(model) is None


def test_operations_that_keep_each_position():
    inputs = keras.Input((4, 3))
    kept = keras.ops.gelu(inputs + 1.0) * inputs
    lost = keras.ops.flip(kept, axis=1)
    found = {type(one).__name__: _graphs.keeps_positions(one) for one in kept_and(inputs, lost)}
    assert found == {"Add": True, "Gelu": True, "Multiply": True, "Flip": False}
    assert _graphs.keeps_positions(keras.layers.Add())
    assert not _graphs.keeps_positions(keras.layers.Conv1D(2, 3))
