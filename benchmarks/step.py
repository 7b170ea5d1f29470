"""Time of one training step, side by side in one run: `python benchmarks/step.py`.

Compares a step of `keras_kd.Distiller` with what it consists of (a step of the student alone, and
the teacher's inference on the same batch), with a step of `keras.distillation.Distiller`, with the
same loop in PyTorch where it is installed, and, taught by stored outputs, with a step of the
student alone. The ways take turns, so that whatever else the machine does falls on all alike.

TensorFlow leaves oneDNN, which PyTorch always uses, off on processors without AVX-512 or AMX. Here
it is on for both, unless TF_ENABLE_ONEDNN_OPTS says otherwise.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import machine
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import keras_kd

try:
    import torch_step
except ModuleNotFoundError:
    torch_step = None

IMAGE = (28, 28, 1)
CLASSES = 10
TEACHERS = {"small": (16, 32, 32), "large": (64, 128, 128)}
STUDENT = (8, 16, 16)
BATCH_SIZES = (32, 256)
# Batches of each data set; a data set is gone through again and again, shuffled.
BATCHES = 8
# Steps of a way before the next one has its turn. The first of them are not counted: the threads of
# the one before are still looking for work.
TURN = 12
UNCOUNTED = 4
BLOCKS = ("block1", "block2", "block3")

ALONE = "student alone"
PARTS = "student alone + teacher"
ONLINE = "keras_kd"
KERAS = "keras.distillation"
FEATURES = "keras_kd, 3 feature pairs"
STORED = "keras_kd, stored teacher"
SEVERAL = "keras_kd, 8 steps a call"
STEPS_PER_CALL = 8
TORCH = "PyTorch"


class Ratio(NamedTuple):
    """Two ways, and what the time of the one may be in terms of the other."""

    one: str
    other: str
    at_most: float | None = None
    at_least: float | None = None

    def bound(self) -> str:
        """The bound in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:.2f}"
        return "" if self.at_least is None else f"at least {self.at_least:.2f}"

    def holds(self, value: float) -> bool:
        """Whether a measured ratio is within the bound."""
        value = round(value, 2)
        return (self.at_most is None or value <= self.at_most) and (
            self.at_least is None or value >= self.at_least
        )


RATIOS = (
    Ratio(ONLINE, PARTS, at_most=1.05),
    Ratio(ONLINE, KERAS, at_most=1.0),
    Ratio(FEATURES, ONLINE, at_most=1.15),
    Ratio(TORCH, ONLINE, at_least=1.0),
    Ratio(TORCH, SEVERAL),
    Ratio(STORED, ALONE, at_most=1.05),
    Ratio(ONLINE, STORED),
)
IMPORTS = Ratio("import keras_kd", "import keras", at_most=0.3)


def classifier(filters: Sequence[int], name: str) -> keras.Model:
    """A plain CNN that ends in logits."""
    inputs = hidden = keras.Input(IMAGE)
    for block, count in zip(BLOCKS, filters, strict=True):
        hidden = keras.layers.Conv2D(count, 3, padding="same", activation="relu")(hidden)
        hidden = keras.layers.MaxPooling2D(name=block)(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden), name=name)


def compiled(model: keras.Model, **options: Any) -> keras.Model:
    """Compile for the same task with the same optimizer."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, **options)
    return model


def distiller(teacher: Any, *losses: Any) -> keras.Model:
    """A new student taught by the teacher, not compiled."""
    return keras_kd.Distiller(teacher, classifier(STUDENT, "student"), *losses)


def examples(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, by chance."""
    generator = np.random.default_rng(0)
    count = BATCHES * batch_size
    images = generator.random((count, *IMAGE), dtype="float32")
    return images, generator.integers(0, CLASSES, count)


def shuffled(data: tuple[np.ndarray, np.ndarray], batch_size: int) -> tf.data.Dataset:
    """The examples in batches, as `fit` makes them of arrays."""
    images, labels = map(tf.constant, data)
    numbers = tf.data.Dataset.range(len(images)).shuffle(len(images)).batch(batch_size)
    batches = numbers.map(
        lambda batch: (tf.gather(images, batch), tf.gather(labels, batch)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def repeated_step(model: keras.Model, batches: tf.data.Dataset) -> Callable[[], Any]:
    """A step of a compiled model, on one batch after the other."""
    iterator = iter(batches.repeat())
    model.make_train_function()
    return lambda: model.train_function(iterator)


def ways(teacher: keras.Model, batch_size: int, directory: Path) -> dict[str, Callable[[], Any]]:
    """One step of each kind."""
    data = examples(batch_size)
    batches = shuffled(data, batch_size)
    first_images = tf.constant(data[0][:batch_size])
    attention = [
        keras_kd.losses.SoftTargets(4.0),
        *(keras_kd.losses.AttentionTransfer(block, block) for block in BLOCKS),
    ]
    theirs = keras.distillation.Distiller(
        teacher,
        classifier(STUDENT, "student"),
        keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence()),
    )
    stored = keras_kd.teachers.StoredTeacher.create(
        teacher, data, directory / f"{teacher.name}-{batch_size}"
    )
    infer = tf.function(lambda images: teacher(images, training=False))
    alone = repeated_step(compiled(classifier(STUDENT, "student")), batches)
    found = {
        ALONE: alone,
        PARTS: lambda: (alone(), infer(first_images)),
        ONLINE: repeated_step(compiled(distiller(teacher)), batches),
        KERAS: repeated_step(compiled(theirs), batches),
        SEVERAL: repeated_step(
            compiled(distiller(teacher), steps_per_execution=STEPS_PER_CALL), batches
        ),
        FEATURES: repeated_step(compiled(distiller(teacher, attention)), batches),
        STORED: repeated_step(
            compiled(distiller(stored)), stored.join(data, batch_size=batch_size)
        ),
    }
    return found | torch_ways(teacher, data, batch_size)


def tried(teacher: keras.Model, batch_size: int) -> dict[str, Callable[[], Any]]:
    """What could make a step faster, or tells what it is spent on."""
    data = examples(batch_size)
    batches = shuffled(data, batch_size)
    plain, loss = distiller(teacher), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile("sgd", loss)
    unfed = compiled(distiller(teacher))
    batch = tuple(part[:batch_size] for part in data)
    unfed.train_on_batch(*batch)
    function = tf.function(unfed.train_step)
    tensors = tuple(map(tf.constant, batch))
    return {
        f"{ONLINE}, compiled by XLA": repeated_step(
            compiled(distiller(teacher), jit_compile=True), batches
        ),
        f"{ONLINE}, SGD for Adam": repeated_step(plain, batches),
        f"{ONLINE}, without a pipeline": lambda: function(tensors),
    }


def torch_ways(
    teacher: keras.Model, data: tuple[np.ndarray, np.ndarray], batch_size: int
) -> dict[str, Callable[[], Any]]:
    """The same in PyTorch, in its faster memory format; nothing where it is not installed."""
    if torch_step is None:
        return {}

    def network(filters: Sequence[int]) -> Any:
        return torch_step.classifier(IMAGE[-1], filters, CLASSES)

    formats = {
        layout: torch_step.distillation_step(
            network(TEACHERS[teacher.name]), network(STUDENT), data, batch_size, layout
        )
        for layout in torch_step.MEMORY_FORMATS
    }
    took = rounds_of(formats, 1)
    return {TORCH: formats[min(formats, key=lambda layout: took[layout])]}


def rounds_of(
    steps: Mapping[str, Callable[[], Any]],
    rounds: int,
    turn: int = TURN,
    uncounted: int = UNCOUNTED,
) -> dict[str, list[float]]:
    """Milliseconds of a step of each way, one median per round; they take turns in random order."""
    for step in steps.values():
        for _ in range(5):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(steps), len(steps)):
            per_call = STEPS_PER_CALL if name == SEVERAL else 1
            calls, skipped = (math.ceil(count / per_call) for count in (turn, uncounted))
            took = list(_timed(steps[name], calls))[skipped:]
            times[name].append(statistics.median(took) / per_call)
    return times


def ratio_of(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the ratios round by round, which a machine that slows down does not change."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _timed(step: Callable[[], Any], count: int) -> Iterator[float]:
    for _ in range(count):
        start = time.perf_counter()
        step()
        yield 1000 * (time.perf_counter() - start)


def import_seconds(module: str, times: int, after: str = "time") -> list[float]:
    """Seconds that fresh processes take to import a module, once another one is there."""
    script = (
        f"import time, {after}; start = time.perf_counter(); import {module}; "
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", script]
    return [
        float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        for _ in range(times)
    ]


def main() -> None:
    """Measure every setting and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS), help="(default all)"
    )
    parser.add_argument(
        "--batch-sizes",
        nargs="+",
        type=int,
        default=BATCH_SIZES,
        metavar="SIZE",
        help="one after the other (default 32 256)",
    )
    parser.add_argument("--rounds", type=int, default=24, help="turns of each way (default 24)")
    parser.add_argument(
        "--imports", type=int, default=5, help="imports in fresh processes (default 5)"
    )
    parser.add_argument(
        "--tried", action="store_true", help="measure as well what could make a step faster"
    )
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    console = Console(width=130)
    measured = {}
    settings = [(name, size) for name in arguments.teachers for size in arguments.batch_sizes]
    with tempfile.TemporaryDirectory() as directory, Progress(console=console) as progress:
        for name, batch_size in progress.track(settings, description="Measuring steps"):
            teacher = classifier(TEACHERS[name], name)
            rounds = arguments.rounds if batch_size <= min(BATCH_SIZES) else arguments.rounds // 2
            steps = ways(teacher, batch_size, Path(directory))
            if arguments.tried:
                steps |= tried(teacher, batch_size)
            measured[f"{name} teacher, batch {batch_size}"] = rounds_of(steps, max(rounds, 1))
    console.print(times_table(measured))
    console.print(ratios_table(measured))
    with console.status("Measuring imports"):
        # In one process, since the time of `import keras` differs by more than this takes.
        seconds = statistics.median(import_seconds("keras_kd", arguments.imports, after="keras"))
    console.print(
        f"import keras_kd after import keras: {seconds:.2f} s ({IMPORTS.bound()}), median of "
        f"{arguments.imports}"
    )
    if torch_step is None:
        console.print("PyTorch is not installed: pip install 'keras-kd[benchmark]'")
    console.print(
        f"{machine.describe()}; TF_ENABLE_ONEDNN_OPTS={os.environ['TF_ENABLE_ONEDNN_OPTS']}"
    )


def times_table(measured: Mapping[str, Mapping[str, list[float]]]) -> Table:
    """Milliseconds per step."""
    table = Table("", *measured, title="Milliseconds per step, medians")
    for way in next(iter(measured.values())):
        table.add_row(way, *(f"{statistics.median(took[way]):.2f}" for took in measured.values()))
    return table


def ratios_table(measured: Mapping[str, Mapping[str, list[float]]]) -> Table:
    """What the ratios are, beside what they may be."""
    table = Table(
        "", "bound", *measured, title="Medians of the ratios round by round; ! where missed"
    )
    for ratio in RATIOS:
        if not all({ratio.one, ratio.other} <= set(took) for took in measured.values()):
            continue
        values = [ratio_of(took[ratio.one], took[ratio.other]) for took in measured.values()]
        shown = [f"{value:.2f}{'' if ratio.holds(value) else ' !'}" for value in values]
        table.add_row(f"{ratio.one} / {ratio.other}", ratio.bound(), *shown)
    return table


if __name__ == "__main__":
    main()
