"""What is lost where only the k largest logits are stored: `python benchmarks/top_k.py`.

Compares `SoftTargets` on stored top-k logits, at the temperature that was stored, with the loss on
all logits: how much of the divergence and of its gradient is left. The logits are those of a
teacher and a student of real digits, and of 1000 classes by a formula: rank r gets
-slope * ln(r) + 0.3 * N(0, 1), and the student is N(0, 1) off. A minute on two cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import machine
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from keras_kd import data
from keras_kd._logits import Logits, Top, remember_logits
from keras_kd.losses import SoftTargets
from keras_kd.teachers.stored.codecs import TopK

EXAMPLES = 2000
TEMPERATURES = (1.0, 4.0)
DTYPES = ("float16", "uint8")


class Loss(NamedTuple):
    """A divergence per example, and its gradient for the student's logits."""

    values: np.ndarray
    gradient: np.ndarray


def zipf(classes: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a teacher and a student of many classes, whose probabilities follow a power law."""
    generator = np.random.default_rng(0)
    shape = (EXAMPLES, classes)
    ranks = 1 + generator.random(shape).argsort(axis=-1).argsort(axis=-1)
    teacher = -slope * np.log(ranks) + 0.3 * generator.normal(size=shape)
    student = teacher + generator.normal(size=shape)
    return teacher.astype("float32"), student.astype("float32")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Logits of a teacher and of a student after an epoch, on real digits."""
    sample = data.load_sample()

    def classifier(units: int, epochs: int) -> keras.Model:
        model = keras.Sequential([
            keras.Input(sample.x_train.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(10),
        ])  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        model.fit(sample.x_train, sample.y_train, batch_size=64, epochs=epochs, verbose=0)
        return model

    images = sample.x_test[:EXAMPLES]
    teacher, student = classifier(128, epochs=8), classifier(16, epochs=1)
    return teacher.predict(images, verbose=0), student.predict(images, verbose=0)


def loss_of(teacher: tf.Tensor, student: np.ndarray, temperature: float) -> Loss:
    """`SoftTargets` of one teacher's output, without T^2."""
    loss = SoftTargets(temperature, scale_by_temperature_squared=False)
    variable = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        values = loss.per_example(teacher, variable)
    return Loss(values.numpy(), tape.gradient(values, variable).numpy())


def top_output(decoded: dict[str, np.ndarray], classes: int, temperature: float) -> tf.Tensor:
    """What a store of the largest logits gives to a loss."""
    values = tf.constant(decoded["values"])
    rest = tf.constant(decoded["rest"][..., 0])
    top = Top(tf.constant(decoded["classes"]), {temperature: rest}, classes)
    remember_logits(values, Logits(values, "softmax", top=top))
    return values


def stored(logits: np.ndarray, codec: TopK) -> dict[str, np.ndarray]:
    """The logits after they have been in a store."""
    records = np.zeros(len(logits), np.dtype(codec.fields))
    for field, column in codec.encode(logits).items():
        records[field] = column
    return codec.decode(records)


def exact(logits: np.ndarray, codec: TopK) -> dict[str, np.ndarray]:
    """What would be stored if nothing were rounded."""
    (temperature,) = codec.temperatures
    order = np.argsort(-logits, axis=-1, kind="stable")
    below = np.take_along_axis(logits, order, axis=-1).astype("float64")
    below -= below[:, :1]
    rest = np.log(np.exp(below[:, codec.top_k :] / temperature).sum(axis=-1, keepdims=True))
    return {
        "values": below[:, : codec.top_k].astype("float32"),
        "classes": order[:, : codec.top_k].astype("int32"),
        "rest": rest.astype("float32"),
    }


def rows(name: str, teacher: np.ndarray, student: np.ndarray, top_k: int) -> Iterator[list[str]]:
    """A row for each temperature and dtype."""
    classes = teacher.shape[-1]
    for temperature in TEMPERATURES:
        full = loss_of(tf.constant(teacher), student, temperature)
        for dtype in DTYPES:
            codec = TopK("logits", (classes,), top_k, dtype, (temperature,))
            kept, rounded = (
                loss_of(top_output(decoded, classes, temperature), student, temperature)
                for decoded in (exact(teacher, codec), stored(teacher, codec))
            )
            rest = exact(teacher, codec)["rest"][:, 0]
            sure = np.log(np.exp(exact(teacher, codec)["values"] / temperature).sum(axis=-1))
            cosine = (full.gradient * rounded.gradient).sum() / np.sqrt(
                (full.gradient**2).sum() * (rounded.gradient**2).sum()
            )
            yield [
                name,
                f"{temperature:g}",
                f"{top_k} of {classes}",
                dtype,
                str(np.dtype(codec.fields).itemsize),
                f"{np.mean(1 / (1 + np.exp(sure - rest))):.3f}",
                f"{kept.values.mean() / full.values.mean():.3f}",
                f"{np.abs(rounded.values - kept.values).mean() / full.values.mean():.1e}",
                f"{cosine:.3f}",
            ]


def main() -> None:
    """Print one table."""
    keras.utils.set_random_seed(0)
    table = Table(
        *("logits", "T", "k", "dtype", "bytes", "mass of the rest", "KL kept / KL"),
        *("rounding / KL", "cosine of gradients"),
        title=f"Top-k against all logits, means of {EXAMPLES} examples",
    )
    console = Console(width=130)
    with console.status("Training a teacher and a student of digits"):
        of_digits = digits()
    for row in rows("digits", *of_digits, top_k=3):
        table.add_row(*row)
    for slope in (2.5, 1.8):
        teacher, student = zipf(1000, slope)
        first = keras.ops.max(keras.ops.softmax(teacher), axis=-1)
        name = f"slope {slope}, first class {float(keras.ops.mean(first)):.2f}"
        for row in rows(name, teacher, student, top_k=16):
            table.add_row(*row)
    console.print(table)
    console.print(machine.describe())


if __name__ == "__main__":
    main()
