"""Trains on several replicas, with interruptions; prints whether the ends are the same.

    python replicas_training.py CASE ...                two logical CPU devices of one process
    TF_CONFIG=... python replicas_training.py CASE ...  one worker of several processes
    ... --train DIRECTORY RESULT                        one training, for a test that kills it

A process of its own, because logical devices are made before TensorFlow begins.
"""

import itertools
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensorflow as tf
from _workers import strategy_of_process

STRATEGY = strategy_of_process()
ONE_DEVICE = tf.distribute.get_strategy()

# After the devices, which Keras uses.
import keras  # noqa: E402
from keras import layers  # noqa: E402

import keras_kd  # noqa: E402

X = np.random.default_rng(0).normal(size=(11, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 11)
# 3 steps an epoch, the last with 3 examples, of which one replica has 2.
BATCH, EPOCHS = 4, 2


class Interruption(keras.callbacks.Callback):
    """After a number of steps, on all workers."""

    def __init__(self, after):
        super().__init__()
        self.after = after
        # Nothing that a checkpoint keeps.
        self.steps = itertools.count(1)

    def on_train_batch_end(self, batch, logs=None):
        if next(self.steps) == self.after:
            raise KeyboardInterrupt


class Steps(keras.callbacks.Callback):
    """Prints that a step is done, and gives the test time to read it."""

    def on_train_batch_end(self, batch, logs=None):
        print("step", flush=True)
        time.sleep(0.1)


class Numbered(keras.utils.PyDataset):
    """Counts epochs, so that it matters how often it is read."""

    def __init__(self):
        super().__init__()
        self.epoch = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        places = slice(index * BATCH, index * BATCH + BATCH)
        return X[places] + self.epoch, Y[places]

    def on_epoch_end(self):
        self.epoch += 1


def arrays():
    return {"x": X, "y": Y, "batch_size": BATCH}


def pipeline():
    return {"x": tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(11, seed=1).batch(BATCH)}


def drawing():
    pairs = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(11, seed=1)
    noisy = pairs.map(lambda x, y: (x + tf.random.normal((4,), seed=2), y))
    return {"x": noisy.batch(BATCH)}


def stack(kit, *more):
    return kit.Sequential(
        [
            kit.layers.InputLayer((4,)),
            kit.layers.Dense(3, activation="tanh", name="hidden"),
            *more,
            kit.layers.Dense(3, name="logits"),
        ]
    )


def plain():
    return stack(keras)


def random():
    """What differs between replicas: masks, statistics and their moving averages."""
    return stack(keras, layers.BatchNormalization(), layers.Dropout(0.3))


def older():
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    return stack(tf_keras, tf_keras.layers.BatchNormalization(), tf_keras.layers.Dropout(0.3))


# The student, its data, and whether one device gives the same within 1e-6.
CASES = {
    "arrays": (plain, arrays, True),
    "pipeline": (plain, pipeline, True),
    "drawing": (plain, drawing, True),
    "numbered": (plain, lambda: {"x": Numbered()}, True),
    "random": (random, arrays, False),
    "older": (older, arrays, False),
}


def distiller(strategy, student):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        found = keras_kd.Distiller(
            stack(keras),
            student(),
            [keras_kd.losses.SoftTargets(3.0), keras_kd.losses.Hint("hidden", "hidden")],
        )
        found.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return found


def train(name, directory, after=0, strategy=STRATEGY):
    """All that a training ends with; None if it was interrupted."""
    student, data, _ = CASES[name]
    model = distiller(strategy, student)
    callbacks = [Interruption(after), keras_kd.callbacks.ResumeTraining(directory, 1)]
    validation = {"validation_data": (X[:8], Y[:8])} if name == "random" else {}
    try:
        history = model.fit(
            **data(), **validation, epochs=EPOCHS, verbose=0, callbacks=callbacks
        ).history
    except KeyboardInterrupt:
        return None
    return {"weights": values(model.trainable_variables), "state": state(model)} | history


def state(model):
    optimizer = model.optimizer.variables
    return values([*model.variables, *(optimizer() if callable(optimizer) else optimizer)])


def values(variables):
    """Of each replica of this process."""
    found = []
    for variable in variables:
        if isinstance(variable, keras.Variable):
            variable = variable.value
        found += [each.numpy() for each in getattr(variable, "values", [variable])]
    return found


def worker():
    place = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))
    return int(place["task"]["index"])


def checkpoints(directory):
    return sorted(Path(directory).rglob("training-*.npz"))


def lose(directory):
    """The last checkpoint of the last worker."""
    if worker() == 1 or "TF_CONFIG" not in os.environ:
        checkpoints(directory)[-1].unlink()


def damage(directory):
    """The last checkpoint of the first worker."""
    if worker() == 0:
        path = checkpoints(directory)[-1]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def same(one, other):
    return all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for name in one
        for a, b in zip(map(np.asarray, one[name]), map(np.asarray, other[name]), strict=True)
    )


def compared(name, folder):
    """Whether an interrupted training ends as the whole one, and how far from one device."""
    whole = train(name, folder / "whole")
    # Within the second epoch.
    assert train(name, folder / "part", 5) is None
    if name == "arrays":
        damage(folder / "part")
        assert train(name, folder / "part", 3) is None
        lose(folder / "part")
    found = {
        "same": same(whole, train(name, folder / "part")),
        "learned": whole["loss"][0] - whole["loss"][-1],
        "files": [str(path.relative_to(folder / "part")) for path in checkpoints(folder / "part")],
    }
    if CASES[name][2]:
        alone = train(name, folder / "alone", strategy=ONE_DEVICE)
        # The first replica's of each.
        first = whole["weights"][:: len(whole["weights"]) // len(alone["weights"])]
        pairs = zip(first, alone["weights"], strict=True)
        found["from one device"] = max(float(np.abs(one - other).max()) for one, other in pairs)
    return found


def message(function, *arguments):
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return "no error"


def unlike(folder):
    """The errors where a worker cannot read what was saved, and where it has lost it."""
    assert train("arrays", folder, 4) is None
    own = checkpoints(folder) if worker() == 1 else []
    for path in own:
        path.write_bytes(b"")
    found = {"unreadable": message(train, "arrays", folder)}
    for path in own:
        path.unlink()
    before = checkpoints(folder)
    found["lost"] = message(train, "arrays", folder)
    return found | {"kept": checkpoints(folder) == before}


def by_files():
    """Parts of the data that are not parts of batches."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.FILE
    return {"x": pipeline()["x"].with_options(options)}


def of_keras(folder, after=0):
    """A model without a teacher, which Keras trains with parts of equal sizes."""
    keras.utils.set_random_seed(1)
    with STRATEGY.scope():
        model = random()
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    resume = keras_kd.callbacks.ResumeTraining(folder, 1)
    try:
        resume.fit(
            model, X[:8], Y[:8], 4, epochs=EPOCHS, verbose=0, callbacks=[Interruption(after)]
        )
    except KeyboardInterrupt:
        return None
    return {"state": state(model)}


def refused(folder):
    """What raises an error on several workers."""
    CASES["by_files"] = (plain, by_files, False)
    return {
        "by_files": message(train, "by_files", folder / "files"),
        "of_keras": message(of_keras, folder / "keras"),
    }


def fewer_replicas(folder):
    """The error where a training on several replicas is to go on with one device."""
    assert train("arrays", folder, 2) is None
    return message(train, "arrays", folder, 0, ONE_DEVICE)


def without_a_teacher(folder):
    whole = of_keras(folder / "whole")
    assert of_keras(folder / "part", 3) is None
    return {"same": same(whole, of_keras(folder / "part"))}


def main(arguments):
    if arguments[0] == "--train":
        directory, result = arguments[1:]
        model = distiller(STRATEGY, random)
        resume = keras_kd.callbacks.ResumeTraining(directory, 1)
        history = model.fit(**arrays(), epochs=3, verbose=0, callbacks=[Steps(), resume]).history
        kept = {f"value_{i}": value for i, value in enumerate(state(model))}
        np.savez(result, **kept, **{name: np.array(one) for name, one in history.items()})
        return {}
    others = {one.__name__: one for one in (unlike, refused, fewer_replicas, without_a_teacher)}
    found = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*the damaged checkpoint")
        for name in arguments:
            path = Path(folder, name)
            found[name] = others[name](path) if name in others else compared(name, path)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
