"""Small models, small data and the numbers that tests compare with."""

import gc
import importlib
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

REFERENCE = Path(__file__).parent / "reference"


def pytest_configure(config):
    config.addinivalue_line("markers", "requires_trainable_backend: used in Keras' own suite")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in the background; processes that tests start and interrupt would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    # Keras, TensorFlow and the tests themselves stay: to look at them in each collection of garbage
    # is a third of the time.
    gc.freeze()


@pytest.fixture(scope="session")
def reference_vectors():
    """Golden numbers by `<case>/<array>`; see reference/README.md."""
    with np.load(REFERENCE / "loss_vectors.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="session")
def formulas():
    """The losses in NumPy; see reference/formulas.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REFERENCE.parent)
        return importlib.import_module("reference.formulas")


def build_dense_model(
    classes=3, *, units=4, activation=None, batch_normalization=False, seed=0, name=None, **options
):
    """Five numbers in, logits out (or probabilities), the weights a function of the seed."""
    keras.utils.set_random_seed(seed)
    wide = keras.initializers.RandomNormal(stddev=1.0)
    layers = [
        keras.Input((5,)),
        keras.layers.Dense(
            units, activation="tanh", kernel_initializer=wide, name="hidden", **options
        ),
        keras.layers.Dense(
            classes, activation=activation, kernel_initializer=wide, name="outputs", **options
        ),
    ]
    if batch_normalization:
        layers.insert(2, keras.layers.BatchNormalization(momentum=0.5, name="normalization"))
    return keras.Sequential(layers, name=name)


@pytest.fixture
def dense_model():
    """`build_dense_model`, for tests that need several models."""
    return build_dense_model


@pytest.fixture
def teacher():
    return build_dense_model(units=6, seed=1, name="wise_teacher")


@pytest.fixture
def student():
    return build_dense_model(seed=2, name="student")


@pytest.fixture(scope="session")
def examples():
    """20 examples: not a multiple of the batch size 8."""
    random = np.random.default_rng(0)
    return random.normal(size=(20, 5)).astype("float32"), random.integers(0, 3, 20)


@pytest.fixture
def hard_loss():
    """Cross-entropy with integer labels, on logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
