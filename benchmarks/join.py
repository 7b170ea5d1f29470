"""CPU time of augmented batches with and without a stored teacher: `python benchmarks/join.py`.

All pipelines shuffle the same arrays and augment each image by its seed in the same way. `join`
also looks up the teacher's outputs for that version of the image and compares the fingerprints.
They take turns. CPU time, since each uses every core. Three minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import machine
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import keras_kd

SHAPES = {"28 x 28 x 1": (28, 28, 1), "32 x 32 x 3": (32, 32, 3)}
BATCH_SIZES = (32, 64, 256)
EXAMPLES = 8192
MOST_RATIO = 1.1


def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """An image flipped at random and moved by up to two pixels."""
    flipped = tf.image.stateless_random_flip_left_right(image, seed)
    padded = tf.pad(flipped, ((2, 2), (2, 2), (0, 0)))
    return tf.image.stateless_random_crop(padded, tf.shape(image), seed)


def by_image(data: tuple[np.ndarray, np.ndarray], batch_size: int) -> tf.data.Dataset:
    """Augmented without a store, as it is usually written: image by image, then in batches."""
    images = tf.data.Dataset.from_tensor_slices(data).shuffle(EXAMPLES)
    seeds = tf.data.Dataset.random(0).batch(2)
    return (
        tf.data.Dataset.zip(images, seeds)
        .map(
            lambda pair, seed: (augment(pair[0], tf.cast(seed, "int32")), pair[1]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def by_batch(data: tuple[np.ndarray, np.ndarray], batch_size: int) -> tf.data.Dataset:
    """Augmented without a store, as `join` does it: one call for a batch."""

    def changed(batch: tuple, numbers: tf.Tensor) -> tuple:
        images, labels = batch
        seeds = tf.cast(tf.stack([numbers, numbers], 1), "int32")[: tf.shape(images)[0]]
        spec = tf.TensorSpec(images.shape[1:], images.dtype)
        images = tf.map_fn(
            lambda pair: tf.ensure_shape(augment(*pair), spec.shape),
            (images, seeds),
            fn_output_signature=spec,
        )
        return images, labels

    batches = tf.data.Dataset.from_tensor_slices(data).shuffle(EXAMPLES).batch(batch_size)
    seeds = tf.data.Dataset.random(0).batch(batch_size)
    return (
        tf.data.Dataset.zip(batches, seeds)
        .map(changed, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def cpu_milliseconds(batches: Iterable) -> float:
    """CPU time for a batch, over a whole epoch: what is read ahead belongs to it."""
    start = time.process_time()
    count = sum(1 for _ in batches)
    return 1000 * (time.process_time() - start) / count


def measured(shape: tuple[int, int, int], batch_size: int, rounds: int) -> list[list[float]]:
    """CPU milliseconds of a batch by image, by batch, and joined, for each round."""
    generator = np.random.default_rng(0)
    data = generator.random((EXAMPLES, *shape), "float32"), generator.integers(0, 10, EXAMPLES)
    teacher = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    with tempfile.TemporaryDirectory() as directory:
        stored = keras_kd.teachers.StoredTeacher.create(
            teacher, data, Path(directory) / "store", augment=augment, versions=2
        )
        ways = [way(data, batch_size) for way in (by_image, by_batch, stored.join)]
        # In the first epoch functions are traced.
        return [[cpu_milliseconds(way) for way in ways] for _ in range(1 + rounds)][1:]


def main() -> None:
    """Measure every setting and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default 5)")
    rounds = parser.parse_args().rounds
    console = Console(width=110)
    table = Table(
        "image", "batch", "by image, ms", "by batch, ms", "join, ms", "join / by image",
        "join / by batch", title=f"CPU time of an augmented batch, medians; at most {MOST_RATIO}",
    )  # fmt: skip
    for name, shape in SHAPES.items():
        for batch_size in BATCH_SIZES:
            with console.status(f"{name}, batch {batch_size}"):
                times = measured(shape, batch_size, rounds)
            medians = [f"{statistics.median(each):.2f}" for each in zip(*times, strict=True)]
            ratios = [statistics.median(each[2] / each[way] for each in times) for way in (0, 1)]
            marked = [f"{ratio:.2f}{' !' * (round(ratio, 2) > MOST_RATIO)}" for ratio in ratios]
            table.add_row(name, str(batch_size), *medians, *marked)
    console.print(table)
    console.print(machine.describe())


if __name__ == "__main__":
    main()
