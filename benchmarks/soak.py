"""Does memory stay flat? `python benchmarks/soak.py`, an hour; `--minutes` for another time.

One training goes on for all that time: a student that is pruned learns from the stored outputs of a
teacher, and is evaluated and saved, with the state of the training, after each epoch. Each minute
it prints the memory that the process holds, the epoch and the images trained on in a second. In the
end it prints how fast memory grew, from a straight line through the second half of the minutes: the
first half has the imports, the compiled functions and the growth of what is kept for use again.
"""

from __future__ import annotations

import argparse
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
from keras_kd import compression
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
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.began = self.last = time.monotonic()
        self.end = self.began + seconds
        self.steps = self.epoch = 0
        self.measured: list[tuple[float, float]] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember the epoch for the lines."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count a step, and look at the clock."""
        self.steps += 1
        now = time.monotonic()
        if now - self.last >= 60:
            self.show(now)
        if now >= self.end:
            self.model.stop_training = True

    def show(self, now: float) -> None:
        """Print a line, and remember its numbers."""
        minutes, megabytes = (now - self.began) / 60, held_megabytes()
        speed = self.steps * BATCH_SIZE / (now - self.last)
        self.measured.append((minutes, megabytes))
        print(
            f"{minutes:6.1f} min, epoch {self.epoch}: {megabytes:7.1f} MB held, "
            f"{speed:,.0f} images/s",
            flush=True,
        )
        self.last, self.steps = now, 0


def main() -> None:
    """Train until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)s")
    minutes = Minutes(60 * parser.parse_args().minutes)
    print(machine.describe(), flush=True)
    keras.utils.set_random_seed(0)
    sample = load_sample()
    x, y = sample.x_train, sample.y_train
    with tempfile.TemporaryDirectory(prefix="keras_kd_soak_") as directory:
        store = Path(directory) / "teacher.store"
        stored = keras_kd.teachers.StoredTeacher.create(network(16), (x, y), store)
        schedule = compression.PolynomialSchedule(end_epoch=100)
        student = compression.prune(network(8), 0.7, schedule=schedule)
        distiller = keras_kd.Distiller(stored, student)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        resume = keras_kd.callbacks.ResumeTraining(Path(directory) / "training")
        distiller.fit(
            stored.join((x, y), BATCH_SIZE, seed=0),
            validation_data=(sample.x_test[:500], sample.y_test[:500]),
            epochs=1_000_000,
            shuffle=False,
            verbose=0,
            callbacks=[minutes, resume],
        )
    late = np.array(minutes.measured[len(minutes.measured) // 2 :])
    if len(late) < 2:
        print("Too short for a line through the minutes: pass --minutes 5 or more")
        return
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    print(
        f"{minutes.epoch} epochs; memory in the second half: {late[0, 1]:.0f} to "
        f"{late[-1, 1]:.0f} MB, {slope:+.2f} MB a minute"
    )


if __name__ == "__main__":
    main()
