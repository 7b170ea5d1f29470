"""Does memory stay flat? `python benchmarks/soak.py`, an hour; `--minutes` for another time.

Round after round it stores the outputs of a teacher, distills a student from the store, prunes it
while it is taught, evaluates it after each epoch, and converts it. Each minute it prints the memory
that the process holds, the size of the store and the images trained on in a second. In the end it
prints how fast memory grew, from a straight line through the second half of the minutes: the first
half has the imports, the compiled functions and the growth of what is kept for use again.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import machine
import numpy as np
from keras import layers

import keras_kd
from keras_kd import compression, tflite
from keras_kd.data import load_sample

BATCH_SIZE = 64


def network(filters: int) -> keras.Model:
    """A small convolutional network for images of 28x28."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(filters, 3, strides=2, activation="relu"),
            layers.Conv2D(2 * filters, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def held_megabytes() -> float:
    """The memory that this process holds now, as Linux counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Minutes(keras.callbacks.Callback):
    """Prints a line each minute, and ends the training when the time is over.

    Args:
        seconds: how long to go on.
        store: the file whose size is printed.
    """

    def __init__(self, seconds: float, store: Path) -> None:
        super().__init__()
        self.store, self.rounds = store, 0
        self.began = self.last = time.monotonic()
        self.end = self.began + seconds
        self.steps = 0
        self.measured: list[tuple[float, float]] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count a step, and look at the clock."""
        self.steps += 1
        now = time.monotonic()
        if now - self.last >= 60:
            self.show(now)
        if now >= self.end:
            self.model.stop_training = True

    def show(self, now: float) -> None:
        """Print a line, and remember what it says."""
        minutes, megabytes = (now - self.began) / 60, held_megabytes()
        speed = self.steps * BATCH_SIZE / (now - self.last)
        self.measured.append((minutes, megabytes))
        print(
            f"{minutes:6.1f} min, round {self.rounds}: {megabytes:7.1f} MB held, store "
            f"{self.store.stat().st_size / 1e6:.2f} MB, {speed:,.0f} images/s",
            flush=True,
        )
        self.last, self.steps = now, 0


def one_round(teacher: keras.Model, data: tuple, minutes: Minutes) -> None:
    """Store, distill, prune and convert once."""
    x, y, validation = data
    minutes.store.unlink(missing_ok=True)
    stored = keras_kd.teachers.StoredTeacher.create(teacher, (x, y), minutes.store)
    student = network(8)
    for prunes in (False, True):
        if prunes:
            student = compression.prune(student, 0.7)
        distiller = keras_kd.Distiller(stored, student)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        joined = stored.join((x, y), BATCH_SIZE, seed=minutes.rounds)
        distiller.fit(
            joined,
            validation_data=validation,
            epochs=5,
            shuffle=False,
            verbose=0,
            callbacks=[minutes],
        )
    plain = compression.strip(student)
    tflite.convert(plain, "int8", x[:100]).predict(x[:10])
    minutes.rounds += 1
    # Each round has models of its own, as a program of its own would.
    keras.backend.clear_session()
    gc.collect()


def main() -> None:
    """Run rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)s")
    seconds = 60 * parser.parse_args().minutes
    print(machine.describe(), flush=True)
    keras.utils.set_random_seed(0)
    sample = load_sample()
    data = (sample.x_train, sample.y_train, (sample.x_test[:500], sample.y_test[:500]))
    teacher = network(16)
    with tempfile.TemporaryDirectory(prefix="keras_kd_soak_") as directory:
        minutes = Minutes(seconds, Path(directory) / "teacher.store")
        while time.monotonic() < minutes.end:
            one_round(teacher, data, minutes)
    late = np.array(minutes.measured[len(minutes.measured) // 2 :])
    if len(late) < 2:
        print("Too short for a line through the minutes: pass --minutes 5 or more")
        return
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    print(
        f"{minutes.rounds} rounds; memory in the second half: {late[0, 1]:.0f} to "
        f"{late[-1, 1]:.0f} MB, {slope:+.2f} MB a minute"
    )


if __name__ == "__main__":
    main()
