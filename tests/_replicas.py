"""Trains on one device and on several replicas; prints how far apart they end.

    python _replicas.py CASE ...           two logical CPU devices of one process
    TF_CONFIG=... python _replicas.py ...  one worker of several processes

A process of its own, because logical devices are made before TensorFlow begins.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

EXAMPLES, BATCH, EPOCHS = 37, 16, 4
CASES = {}


def strategy_of_process():
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    (processor,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


STRATEGY = strategy_of_process()

# After the devices, which Keras uses.
import keras  # noqa: E402
from keras import layers  # noqa: E402

import keras_kd  # noqa: E402
from keras_kd import losses  # noqa: E402


def case(function):
    """A function that returns `(Distiller's arguments, compile's arguments, fit's arguments)`."""
    CASES[function.__name__] = function
    return function


def random(seed=0):
    return np.random.default_rng(seed)


def features(count=EXAMPLES, *shape):
    return random(1).normal(size=(count, *(shape or (5,)))).astype("float32")


def labels(count=EXAMPLES, *shape):
    return random(2).integers(0, 3, (count, *shape))


def weights(count=EXAMPLES, *shape):
    found = random(3).uniform(0, 2, (count, *shape)).astype("float32")
    found[1] = 0.0
    return found


def chain(*stack, shape=(5,), seed=2, kit=keras):
    """A model of random weights; the kit is a Keras."""
    keras.utils.set_random_seed(seed)
    model = kit.Sequential([kit.layers.InputLayer(shape), *stack], name=f"model_{seed}")
    generator = random(seed)
    for weight in model.trainable_weights:
        weight.assign(generator.normal(size=weight.shape) * 0.5)
    return model


def dense(units=4, seed=2, end=None, kit=keras, **options):
    return chain(
        kit.layers.Dense(units, activation="tanh", name="hidden", **options),
        kit.layers.Dense(3, activation=end, name="outputs"),
        seed=seed,
        kit=kit,
    )


def teacher(**options):
    return dense(6, seed=1, **options)


def hard(**options):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


def fitted(x=None, y=None, **options):
    return {"x": features() if x is None else x, "y": labels() if y is None else y, **options}


def compiled(loss=None, **options):
    return {"optimizer": keras.optimizers.SGD(0.1), "loss": loss or hard(), **options}


@case
def outputs_and_features():
    """Adapters, sample weights, and a last batch of one, which leaves a replica without any."""
    given = [losses.SoftTargets(3.0), losses.Hint("hidden", "hidden")]
    return (
        ((teacher(), dense(), given), {}),
        compiled(metrics=["accuracy"]),
        fitted(features(33), labels(33), sample_weight=weights(33)),
    )


def train(strategy, name):
    """The logs, and all weights at the end."""
    with strategy.scope():
        (positional, options), compile_options, fit_options = CASES[name]()
        distiller = keras_kd.Distiller(*positional, **options)
        distiller.compile(**compile_options)
    fit_options = {"batch_size": BATCH, "epochs": EPOCHS, "shuffle": False} | fit_options
    if isinstance(fit_options["x"], tf.data.Dataset):
        del fit_options["batch_size"]
    history = distiller.fit(verbose=0, **fit_options).history
    models = [distiller.student, *distiller.teacher.learning_models]
    trained = [weight.numpy() for weight in distiller.trainable_variables]
    for model in models:
        trained += [np.array(weight) for weight in model.get_weights()]
    return history, trained


def apart(name):
    """The largest differences of weights and of logs, the names of logs, and how far it learned."""
    (logs, ours), (expected, theirs) = (
        train(strategy, name) for strategy in (STRATEGY, tf.distribute.get_strategy())
    )
    assert list(logs) == list(expected), (list(logs), list(expected))
    assert all(np.isfinite(weight).all() for weight in theirs)
    return {
        "weights": max(
            float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True)
        ),
        "logs": max(float(np.abs(np.subtract(logs[log], expected[log])).max()) for log in logs),
        "names": list(logs),
        "learned": expected["loss"][0] - expected["loss"][-1],
    }


if __name__ == "__main__":
    print(json.dumps({name: apart(name) for name in sys.argv[1:]}))
