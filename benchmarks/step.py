"""Time of one training step, side by side in one run: `python benchmarks/step.py`.

Compares a step of `keras_kd.Distiller` with what it consists of (a step of the student alone, and
the teacher's inference on the same batch) and with a step of `keras.distillation.Distiller`. The
ways take turns batch by batch, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import keras_kd

IMAGE = (28, 28, 1)
CLASSES = 10


def classifier(filters: Sequence[int], name: str) -> keras.Model:
    """A plain CNN that ends in logits."""
    inputs = hidden = keras.Input(IMAGE)
    for count in filters:
        hidden = keras.layers.Conv2D(count, 3, padding="same", activation="relu")(hidden)
        hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden), name=name)


def compiled(model: keras.Model) -> keras.Model:
    """Compile for the same task with the same optimizer."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def ways(teacher: keras.Model, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, Callable]:
    """One step of each kind, on a batch that is on the device already."""
    student = classifier((8, 16), "student")
    ours = compiled(keras_kd.Distiller(teacher, keras.models.clone_model(student)))
    theirs = compiled(
        keras.distillation.Distiller(
            teacher,
            keras.models.clone_model(student),
            keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence()),
        )
    )
    infer = tf.function(lambda images: teacher(images, training=False))
    images = tf.constant(batch[0])
    alone = repeated_step(compiled(student), batch)
    return {
        "student alone": alone,
        "student alone + teacher inference": lambda: (alone(), infer(images)),
        "keras_kd.Distiller": repeated_step(ours, batch),
        "keras.distillation.Distiller": repeated_step(theirs, batch),
    }


def repeated_step(model: keras.Model, batch: tuple[np.ndarray, np.ndarray]) -> Callable[[], None]:
    """A step of a compiled model that always trains on the same batch."""
    iterator = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
    model.make_train_function()
    return lambda: model.train_function(iterator)


def medians(steps: dict[str, Callable], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way; they take turns."""
    for step in steps.values():
        for _ in range(5):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure every setting and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="steps of each way (default 100)")
    rounds = parser.parse_args().rounds
    keras.utils.set_random_seed(0)
    teachers = {"small": (16, 32), "large": (64, 128, 128)}
    generator = np.random.default_rng(0)
    parts, keras_name = "student alone + teacher inference", "keras.distillation.Distiller"
    table = Table(title=f"Milliseconds per step, medians of {rounds}")
    for column in (
        "teacher",
        "batch",
        "alone",
        "alone + teacher",
        "keras_kd",
        "keras",
        "keras_kd / (alone + teacher)",
        "keras_kd / keras",
    ):
        table.add_column(column, justify="right")
    for teacher_name, filters in teachers.items():
        for batch_size in (32, 256):
            images = generator.random((batch_size, *IMAGE), dtype="float32")
            labels = generator.integers(0, CLASSES, batch_size)
            steps = ways(classifier(filters, teacher_name), (images, labels))
            took = medians(steps, rounds if batch_size == 32 else max(rounds // 4, 10))
            ours = took["keras_kd.Distiller"]
            table.add_row(
                teacher_name,
                str(batch_size),
                *(f"{value:.2f}" for value in took.values()),
                f"{ours / took[parts]:.2f}",
                f"{ours / took[keras_name]:.2f}",
            )
    console = Console(width=140)
    console.print(table)
    console.print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
