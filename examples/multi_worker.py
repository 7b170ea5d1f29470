"""Distil on two processes, as on two machines, and compare with one.

    python examples/multi_worker.py

Starts two workers of `tf.distribute.MultiWorkerMirroredStrategy` on this machine, each of which has
half of every batch, and trains the same student alone in a third process. Prints test accuracies
and the largest difference between the weights. Expect equal accuracies and less than 1e-6.

On several machines start one worker on each, with the TF_CONFIG of TensorFlow's guide.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORKERS = 2


def worker(epochs: int, images: int, output: str) -> None:
    """Train, and save the student's weights and accuracy."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    import keras

    import keras_kd

    # All workers shuffle alike, so that together they see each image once in an epoch.
    keras.utils.set_random_seed(1)
    digits = keras_kd.data.load_sample().first(images, None)

    def classifier(units: int) -> keras.Model:
        layers = [keras.Input((28, 28, 1)), keras.layers.Flatten()]
        layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(10)]
        return keras.Sequential(layers)

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Each process trains the same teacher, which needs no part in the strategy: it is only read.
    teacher = classifier(256)
    teacher.compile("adam", loss)
    teacher.fit(digits.x_train, digits.y_train, epochs=epochs, verbose=0)
    with strategy.scope():
        student = classifier(16)
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    distiller.fit(digits.x_train, digits.y_train, batch_size=64, epochs=epochs, verbose=0)
    logs = distiller.evaluate(digits.x_test, digits.y_test, verbose=0, return_dict=True)
    np.savez(output, *student.get_weights(), accuracy=logs["accuracy"])


def started(options: argparse.Namespace, output: Path, **environment: str) -> subprocess.Popen:
    command = [sys.executable, __file__, "--epochs", options.epochs, "--images", options.images]
    command += ["--output", output]
    return subprocess.Popen(list(map(str, command)), env={**os.environ, **environment})


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000, help="for training")
    parser.add_argument("--output", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.output:
        worker(options.epochs, options.images, options.output)
        return {}
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(WORKERS)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{name}.npz") for name in [*range(WORKERS), "alone"]]
        running = [started(options, files[-1])]
        for index in range(WORKERS):
            place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            running.append(started(options, files[index], TF_CONFIG=json.dumps(place)))
        if any(process.wait() for process in running):
            sys.exit("A worker failed.")
        first, _, alone = (dict(np.load(file)) for file in files)
    results = {
        "accuracy of two": float(first["accuracy"]),
        "accuracy of one": float(alone["accuracy"]),
        "difference of weights": max(float(np.abs(first[n] - alone[n]).max()) for n in alone),
    }
    print("\n".join(f"{name:22} {value:.6g}" for name, value in results.items()))
    return results


if __name__ == "__main__":
    main()
