"""Small models, small data and the numbers that tests compare with.

Keras is imported where it is used: the process that deals the tests out to the workers needs none.
"""

import functools
import gc
import importlib
import os
import signal
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from _rows import mark_the_slow_rows

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(autouse=True, scope="module")
def log_level_of_scripts():
    """Scripts choose TensorFlow's log level when they are imported: not for what comes later."""
    before = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    yield
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    if before is not None:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = before


def pytest_configure(config):
    config.addinivalue_line("markers", "requires_trainable_backend: used in Keras' own suite")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in the background; processes that tests start and interrupt would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    # Keras, TensorFlow and the tests themselves stay: to look at them in each collection of garbage
    # is a third of the time.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    mark_the_slow_rows(items)


def pytest_collection_finish(session):
    keras = sys.modules.get("keras")
    if keras is not None and keras.backend.backend() == "tensorflow":
        keep_kernels_when_seeding()
        read_data_without_autotuning()


def keep_kernels_when_seeding():
    """Have `keras.utils.set_random_seed` keep the kernels of TensorFlow's eager operations.

    TensorFlow drops all of them for the few that hold a random state, of which Keras 3 uses none;
    that triples the time of the next step of a small model. `tf.random.set_seed` and that of
    tf_keras are as they were.
    """
    import keras
    from tensorflow.python.eager import context

    set_random_seed = keras.utils.set_random_seed

    @functools.wraps(set_random_seed)
    def called(seed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(context.context(), "_context_handle", None)
            set_random_seed(seed)

    keras.utils.set_random_seed = called


def read_data_without_autotuning():
    """Have iterators of tf.data tune nothing, so that they end at once.

    The thread that tunes sleeps longer and longer, up to a minute, and the wake-up at the end of
    its iterator can pass it by; the process then waits for it. In one of ten iterators of an
    interrupted training it did (TensorFlow 2.21): half a minute in which no test ran.
    """
    import tensorflow as tf

    original = tf.data.Dataset._apply_debug_options
    options = tf.data.Options()
    options.autotune.enabled = False
    tf.data.Dataset._apply_debug_options = lambda dataset: original(dataset).with_options(options)


def seed_by_name(name):
    """Make weights and data depend on the test, not on what ran before it."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(zlib.crc32(name.encode()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    seed_by_name(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    if fixturedef.scope == "function":
        return (yield)
    # Tests share it: it is the same whichever comes first, and what follows is the same without it.
    seed_by_name(fixturedef.argname)
    try:
        return (yield)
    finally:
        seed_by_name(request._pyfuncitem.nodeid)


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
    import keras

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
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
