"""What makes a student faster on a CPU, side by side in one run: `python benchmarks/filters.py`.

A student with a share of its weights zero (what `prune` leaves), and one without the same share of
its filters (`remove_filters`), both converted by `keras_kd.tflite.convert`, against the student
itself. Latency does not depend on what a student has learned, so nothing is trained. The files take
turns, so that whatever else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import gzip
import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_kd.compression import remove_filters, summary
from keras_kd.tflite import TFLiteModel, convert

IMAGE = (64, 64, 3)
CLASSES = 10
SHARES = (0.25, 0.5, 0.75)


def residual_student(widths: Sequence[int] = (32, 64, 128)) -> keras.Model:
    """A small residual network."""
    layers = keras.layers
    inputs = hidden = keras.Input(IMAGE)
    for width in widths:
        hidden = layers.Conv2D(width, 3, strides=2, padding="same")(hidden)
        hidden = layers.ReLU()(layers.BatchNormalization()(hidden))
        branch = layers.Conv2D(width, 3, padding="same", activation="relu")(hidden)
        branch = layers.Conv2D(width, 3, padding="same")(branch)
        hidden = layers.ReLU()(layers.Add()([hidden, layers.BatchNormalization()(branch)]))
    hidden = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, layers.Dense(CLASSES)(hidden))


def with_zeros(student: keras.Model, share: float) -> keras.Model:
    """A copy in which the smallest weights of every kernel are zero."""
    copy = keras.models.clone_model(student)
    for weight, original in zip(copy.weights, student.weights, strict=True):
        value = keras.ops.convert_to_numpy(original).copy()
        if original.name == "kernel":
            value[np.abs(value) <= np.quantile(np.abs(value), share)] = 0
        weight.assign(value)
    return copy


def microseconds(files: dict[str, TFLiteModel], rounds: int, runs: int) -> dict[str, float]:
    """The median of each file in its fastest turn, the one that was disturbed least."""
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, file in files.items():
            times[name].append(file.benchmark(runs, 1, "xnnpack", memory=False).median)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    """Convert, measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="turns of each file (default 40)")
    parser.add_argument("--runs", type=int, default=10, help="runs in each turn (default 10)")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    student = residual_student()
    data = np.random.default_rng(0).random((50, *IMAGE), dtype="float32")
    students = {"dense": student}
    left = {"dense": 1.0}
    for share in SHARES:
        students[f"{share:.0%} of weights zero"] = with_zeros(student, share)
        smaller = remove_filters(student, share)
        students[f"{share:.0%} of filters gone"] = smaller
        counted = summary(smaller, student)
        left[f"{share:.0%} of filters gone"] = (
            counted.multiplications / counted.original.multiplications
        )
    console = Console(width=140)
    for quantization in ("float32", "int8"):
        files = {name: convert(x, quantization, data) for name, x in students.items()}
        took = microseconds(files, options.rounds, options.runs)
        table = Table(title=f"{quantization}, one thread, XNNPACK")
        for column in ("student", "multiplications", "bytes", "gzip", "microseconds", "time/dense"):
            table.add_column(column, justify="right")
        for name, file in files.items():
            table.add_row(
                name,
                f"{left.get(name, 1.0):.1%}",
                f"{file.size:,}",
                f"{len(gzip.compress(file.content)):,}",
                f"{took[name]:.0f}",
                f"{took[name] / took['dense']:.2f}",
            )
        console.print(table)
    console.print(f"{student.count_params():,} parameters, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
