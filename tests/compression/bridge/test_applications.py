"""Every model of keras.applications: the same outputs and the same step of training."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression.bridge.graph import read

# The others are slow to build, in Keras and for the bridge.
FAST = ("MobileNet",)
# Smaller inputs than these are refused by the model.
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
SIZE = 32
CLASSES = 5
# Why one of them would not be rebuilt exactly, by its name.
EXCEPTIONS: dict[str, str] = {}

NAMES = sorted(
    name
    for name, function in vars(keras.applications).items()
    if inspect.isfunction(function) and name not in EXCEPTIONS
)


def _build(name):
    keras.utils.set_random_seed(0)
    size = max(SIZE, SMALLEST.get(name, 0))
    return getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=CLASSES, classifier_activation=None
    )


def _images(model, examples=4):
    """Images in the range of values that the model rescales itself, or else expects."""
    rescales = any(isinstance(layer, layers.Rescaling) for layer in model.layers)
    low, high = (0, 255) if rescales else (-1, 1)
    values = np.random.default_rng(0).uniform(low, high, (examples, *model.input_shape[1:]))
    return values.astype("float32")


def _as_if_trained(model, images):
    """Every weight has values of its own, and the activations keep within bounds.

    Statistics are those of a batch, moved: those of a new model (0 and 1) let a hundred layers
    of random weights grow to infinity. What is dropped at random differs between two Kerases, so
    nothing is dropped.
    """
    generator = np.random.default_rng(1)
    normalizations = []
    for layer in read(model).layers():
        if hasattr(layer, "rate"):
            layer.rate = 0.0
        if isinstance(layer, layers.BatchNormalization):
            normalizations.append((layer, layer.momentum))
            layer.momentum = 0.0
    for weight in model.trainable_weights:
        kind = weight.path.split("/")[-1]
        if kind == "gamma":
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "bias"):
            weight.assign(generator.normal(0, 0.2, weight.shape))
    model(images, training=True)
    for layer, momentum in normalizations:
        layer.momentum = momentum
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        shift = generator.normal(0, 0.1, mean.shape) * np.sqrt(variance + 1e-3)
        layer.moving_mean.assign(mean + shift)
        layer.moving_variance.assign(variance * generator.uniform(0.8, 1.25, variance.shape) + 1e-3)
    return model


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES],
)
def test_same_outputs_and_same_step(name, assert_same_step, record_property):
    keras.backend.clear_session()
    model = _build(name)
    images = _images(model)
    _as_if_trained(model, images)
    outputs = np.asarray(model(images))
    assert np.isfinite(outputs).all()
    assert outputs.std() > 1e-3
    # Both Kerases run the same kernels of TensorFlow in the same order; where one kernel adds in
    # another order, a hundred layers make more of it in gradients than in outputs.
    for what, difference in assert_same_step(
        model, images, tolerance=1e-5, gradient_tolerance=1e-3
    ).items():
        record_property(what, difference)
