"""Which form of an online teacher is fastest on this machine, and does its student notice?

    python benchmarks/teacher_forms.py --data-dir ~/tensorflow_datasets

A teacher with batch normalizations is trained on Fashion-MNIST once. In each form it is timed, the
forms taking turns, compared with itself, and gives lessons to students on several seeds, which
begin with the same weights and see the same images in the same order. A MobileNetV2 is timed beside
it. About seven minutes on two cores, and two more for the teacher the first time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import machine
import numpy as np
from distillation_gain import mean_and_standard_error
from forms import AS_IT_IS, FORMS, asked
from loss_trials import Classroom, Row, Setting
from rich.console import Console
from rich.table import Table

import keras_kd.data
from keras_kd.losses import SoftTargets
from keras_kd.teachers import Teacher

LESSON = Row(SoftTargets, (), 1.0, {"temperature": 4.0})
CALIBRATION_IMAGES = 500
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def formed(model: keras.Model, examples: np.ndarray, progress: Callable) -> dict[str, Teacher]:
    """The model in every form."""
    teachers = {}
    for name, make in FORMS.items():
        progress(f"{model.name}: {name}")
        teachers[name] = make(model, examples)
    return teachers


def milliseconds(
    teachers: dict[str, Teacher], batch: np.ndarray, rounds: int, most_seconds: float
) -> dict[str, float]:
    """The median time of each on a batch; they take turns for so many rounds or seconds."""
    asking = {name: asked(teacher) for name, teacher in teachers.items()}
    images = keras.ops.convert_to_tensor(batch)
    for ask in asking.values():
        for _ in range(2):
            ask(images).numpy()
    times: dict[str, list[float]] = {name: [] for name in teachers}
    end = time.perf_counter() + most_seconds
    for _ in range(rounds):
        for name, ask in asking.items():
            start = time.perf_counter()
            ask(images).numpy()
            times[name].append(1000 * (time.perf_counter() - start))
        if time.perf_counter() > end:
            break
    return {name: statistics.median(of_form) for name, of_form in times.items()}


def said(teachers: dict[str, Teacher], images: np.ndarray) -> dict[str, np.ndarray]:
    """The logits of each."""
    return {
        name: np.asarray(asked(teacher)(images), dtype="float32")
        for name, teacher in teachers.items()
    }


def students(
    room: Classroom, teachers: dict[str, Teacher], seeds: int, progress: Callable
) -> dict[str, list[float]]:
    """The accuracies in percent of the students of each, one per seed."""
    accuracies: dict[str, list[float]] = {name: [] for name in teachers}
    for seed in range(seeds):
        for name, teacher in teachers.items():
            room.teacher = teacher
            accuracies[name].append(room.trial(LESSON, seed))
            progress(f"seed {seed}, {name}: {accuracies[name][-1]:.2f} %")
    return accuracies


def mobilenet(size: int) -> keras.Model:
    """A model with depthwise convolutions; statistics as if it had been trained."""
    model = keras.applications.MobileNetV2(
        (size, size, 3), weights=None, classes=10, classifier_activation=None
    )
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            around = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
            values = (
                around[weight.name] + generator.uniform(-0.3, 0.3, weight.shape)
                for weight in layer.weights
            )
            layer.set_weights(list(values))
    return model


def table(
    times: dict[str, dict[str, float]],
    logits: dict[str, np.ndarray],
    accuracies: dict[str, list[float]],
) -> Table:
    """A row for each form.

    Args:
        times: by the teacher, the milliseconds of each form.
        logits: of each form, on the same images.
        accuracies: in percent, of each form's students, seed by seed.
    """
    rows = Table(title=f"Forms of a teacher; {len(accuracies[AS_IT_IS])} students of each")
    rows.add_column("form")
    for teacher in times:
        rows.add_column(f"{teacher}, ms", justify="right")
        rows.add_column("ratio", justify="right")
    for column in ("logits off by", "same class", "student, %", "against as it is"):
        rows.add_column(column, justify="right")
    for name in logits:
        cells = []
        for of_teacher in times.values():
            cells.append(f"{of_teacher[name]:.1f}")
            cells.append(f"{of_teacher[name] / of_teacher[AS_IT_IS]:.2f}")
        expected, got = logits[AS_IT_IS], logits[name]
        agreement = np.mean(expected.argmax(-1) == got.argmax(-1))
        differences = np.subtract(accuracies[name], accuracies[AS_IT_IS])
        rows.add_row(
            name,
            *cells,
            f"{np.abs(expected - got).max():.0e}",
            f"{agreement:.2%}",
            _mean(accuracies[name], ".2f"),
            "" if name == AS_IT_IS else _mean(differences, "+.2f"),
        )
    return rows


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    defaults = Setting()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of tensorflow-datasets")
    parser.add_argument("--seeds", type=int, default=3, help="students of each (default 3)")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each (default 40)")
    parser.add_argument(
        "--seconds", type=float, default=40, help="for all turns of a teacher (default 40)"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="when timing (default 64)")
    parser.add_argument("--epochs", type=int, default=12, help="of a student (default 12)")
    parser.add_argument("--images", type=int, default=defaults.student_images)
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--teacher-images", type=int, default=defaults.teacher_images)
    parser.add_argument("--channels", type=int, nargs=3, default=(64, 128, 256))
    parser.add_argument("--mobilenet-size", type=int, default=96, metavar="PIXELS")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/keras_kd")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("a standard error needs at least two seeds: --seeds 3")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train what has to be trained, measure, and print one table."""
    options = parsed(arguments)
    setting = Setting(
        teacher_images=options.teacher_images,
        teacher_epochs=options.teacher_epochs,
        teacher_channels=tuple(options.channels),
        student_images=options.images,
        student_epochs=options.epochs,
    )
    messages = Console(stderr=True, highlight=False, style="dim")
    messages.print("the teacher")
    dataset = keras_kd.data.load("fashion_mnist", options.data_dir)
    room = Classroom(dataset, setting, options.cache)
    teacher_accuracy = room.score(room.teacher)
    times = {}
    images = dataset.x_train[:CALIBRATION_IMAGES]
    teachers = formed(room.teacher, images, messages.print)
    times["CNN"] = milliseconds(
        teachers, images[: options.batch_size], options.rounds, options.seconds
    )
    size = options.mobilenet_size
    noise = np.random.default_rng(0).random((options.batch_size, size, size, 3), dtype="float32")
    others = formed(mobilenet(size), noise, messages.print)
    times["MobileNetV2"] = milliseconds(others, noise, options.rounds, options.seconds)
    del others
    logits = said(teachers, dataset.x_test[:1000])
    accuracies = students(room, teachers, options.seeds, messages.print)

    console = Console(width=150, highlight=False)
    console.print(table(times, logits, accuracies))
    console.print(
        f"CNN of {'-'.join(map(str, setting.teacher_channels))} channels, {teacher_accuracy:.2f} %"
        f" on Fashion-MNIST; MobileNetV2 on {size}x{size}; batches of {options.batch_size}. "
        "In LiteRT a batch at a time on all cores."
    )
    has = bool(BFLOAT16 & machine.instructions())
    console.print(
        f"This processor has {'' if has else 'no '}instructions for bfloat16"
        + ("." if has else ": TensorFlow converts to float32 and back.")
    )
    console.print(machine.describe())


def _mean(values: list[float], form: str) -> str:
    mean, error = mean_and_standard_error(values)
    return f"{mean:{form}} ± {error:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
