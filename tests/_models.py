"""Models, data and training steps that several test modules share (`pythonpath` in setup.cfg)."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers


class Row(NamedTuple):
    """What provokes an error, what the message says, and what follows its advice."""

    provoke: object
    message: str
    follow: object


class Block(layers.Layer):
    """A custom layer made of others."""

    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.wide = layers.Dense(8, activation="relu")
        self.spread = layers.DepthwiseConv1D(3, padding="same")
        self.narrow = layers.Dense(units)

    def build(self, shape):
        self.wide.build(shape)
        self.spread.build((*shape[:-1], 8))
        self.narrow.build((*shape[:-1], 8))

    def call(self, inputs):
        return self.narrow(self.spread(self.wide(inputs)))


def chain(*stack, shape=(8, 8, 3), name=None):
    return keras.Sequential([keras.Input(shape), *stack], name=name)


def mlp(inputs=16, units=10, classes=4, *, name=None, **options):
    """One hidden layer, which takes the options."""
    keras.utils.set_random_seed(1)
    return chain(
        layers.Dense(units, activation="relu", name="hidden", **options),
        layers.Dense(classes, name="logits"),
        shape=(inputs,),
        name=name,
    )


def cnn(frozen=False):
    """Every kind of convolution, and a layer that TF-MOT's registry refuses (Rescaling)."""
    keras.utils.set_random_seed(1)
    return chain(
        layers.Rescaling(2.0, name="rescaling"),
        layers.Conv2D(4, 3, name="conv", trainable=not frozen),
        layers.BatchNormalization(name="normalization"),
        layers.ReLU(name="relu"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.SeparableConv2D(8, 3, name="separable"),
        layers.Flatten(name="flatten"),
        layers.Dense(16, activation="relu", name="hidden"),
        layers.Dense(4, name="logits"),
        shape=(8, 8, 1),
    )


def randomized(model, seed=0):
    """Every weight random, so that no bias equals another and no channel is like another."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" in variable.path:
            continue
        low, high = (0.5, 1.5) if "variance" in variable.name else (-0.5, 0.5)
        variable.assign(generator.uniform(low, high, variable.shape))
    return model


def in_flavour(model, flavour):
    """The Keras 3 model itself ("keras"), or converted ("tf_keras")."""
    from keras_kd.compression import to_tf_keras

    return model if flavour == "keras" else to_tf_keras(model)


def labelled(count, shape, classes=3, seed=0):
    """Random inputs, and random labels that have nothing to do with them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, *shape)).astype("float32")
    return x, generator.integers(0, classes, count)


def inputs_for(model, count=3, seed=1):
    """Random inputs: one array, or a list where the model has several inputs."""
    generator = np.random.default_rng(seed)
    drawn = [
        generator.normal(size=(count, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]
    return drawn if len(drawn) > 1 else drawn[0]


def examples_for(model, count=64):
    """Random inputs and labels for a classifier."""
    labels = np.random.default_rng(1).integers(0, model.output_shape[-1], count)
    return inputs_for(model, count, seed=0), labels


def outputs(model, x):
    """What `model` computes in inference: numpy arrays in the model's own structure."""
    return keras.tree.map_structure(np.asarray, model(x, training=False))


def cross_entropy(library=keras):
    """For integer labels and logits."""
    return library.losses.SparseCategoricalCrossentropy(from_logits=True)


def train(student, x=None, y=None, *, optimizer=None, run_eagerly=True, compiled=None, **options):
    """A compressed tf_keras classifier after some steps, on random examples if none are given.

    The default examples are four batches. To trace a graph takes longer than some eager steps;
    `compiled` has more options of `compile`, the others are those of `fit`.
    """
    import tf_keras

    if x is None:
        x, y = examples_for(student)
    optimizer = optimizer or tf_keras.optimizers.Adam(0.01)
    student.compile(optimizer, cross_entropy(tf_keras), run_eagerly=run_eagerly, **(compiled or {}))
    callbacks = [*options.pop("callbacks", ()), *getattr(student, "training_callbacks", list)()]
    options = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0, **options}
    student.fit(x, y, callbacks=callbacks, **options)
    return student
