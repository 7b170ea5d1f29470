"""Whether low rank makes a student faster on a CPU: `python benchmarks/factorization.py`.

A CNN and what `factorize` makes of it, all converted by `keras_kd.tflite.convert`. Latency does not
depend on what a student has learned, so nothing is trained. The files take turns, as in
`benchmarks/filters.py`.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from filters import CLASSES, IMAGE, microseconds
from rich.console import Console
from rich.table import Table

from keras_kd.compression import factorize
from keras_kd.tflite import convert

SHARES = (0.5, 0.25)
# Filters and strides.
CONVOLUTIONS = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2))


def cnn() -> keras.Model:
    """Six convolutions, each with a normalization, and a small head."""
    student = keras.Sequential([keras.Input(IMAGE)])
    for filters, strides in CONVOLUTIONS:
        student.add(keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False))
        student.add(keras.layers.BatchNormalization())
        student.add(keras.layers.ReLU())
    student.add(keras.layers.GlobalAveragePooling2D())
    student.add(keras.layers.Dense(CLASSES))
    return student


def main() -> None:
    """Convert, measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="turns of each file (default 40)")
    parser.add_argument("--runs", type=int, default=10, help="runs in each turn (default 10)")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    original = cnn()
    students = {"original": original}
    for form in ("channel", "spatial"):
        for share in SHARES:
            students[f"{form}, {share:.0%}"] = factorize(
                original, target_parameters=share, form=form
            )
    data = np.random.default_rng(0).random((50, *IMAGE), dtype="float32")
    console = Console(width=100)
    for quantization in ("float32", "int8"):
        files = {name: convert(x, quantization, data) for name, x in students.items()}
        took = microseconds(files, options.rounds, options.runs)
        table = Table(title=f"{quantization}, one thread, XNNPACK")
        for column in ("student", "parameters", "bytes", "microseconds", "time/original"):
            table.add_column(column, justify="right")
        for name, file in files.items():
            table.add_row(
                name,
                f"{students[name].count_params():,}",
                f"{file.size:,}",
                f"{took[name]:.0f}",
                f"{took[name] / took['original']:.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
