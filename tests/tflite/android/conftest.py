"""Tiny color classifiers with scores of three classes, and what they say of themselves."""

import keras
import numpy as np
import pytest

from keras_kd import tflite
from keras_kd.tflite import android

MEAN, STD = android.normalization(0, 1)


@pytest.fixture(scope="session")
def color_images():
    return np.random.default_rng(0).random((32, 8, 8, 3), np.float32)


@pytest.fixture(scope="session")
def color_student():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="scores"),
        ]
    )


@pytest.fixture(scope="session")
def color_model(color_student):
    return tflite.convert(color_student)


@pytest.fixture(scope="session")
def phone_model(color_student, color_images):
    return tflite.convert(color_student, "int8", color_images)


@pytest.fixture(scope="session")
def metadata():
    return android.Metadata(
        class_names=["Äpfel", "苹果", "apple \N{RED APPLE}"],
        name="Fruit",
        description="Tells three fruits apart.\nNot very well.",
        author="An author",
        license="Apache-2.0",
        version="1.2.0",
        mean=(1.0, 1.0, 1.0),
        std=(254.0, 254.0, 254.0),
        score_calibration=android.ScoreCalibration(
            [(1.0, 2.0, -0.5), None, (0.5, 3.0, 0.25, 0.125)],
            transformation="inverse_logistic",
            default_score=0.0625,
        ),
    )


@pytest.fixture(scope="session")
def described(color_model, metadata):
    """A model with everything that metadata can say."""
    return android.add_metadata(color_model, metadata)


@pytest.fixture(scope="session")
def plain():
    """The least that a model of three classes needs."""
    return android.Metadata(["a", "b", "c"], mean=MEAN, std=STD)
