"""Does a search of hyperparameters pay? KerasTuner against the defaults, at equal cost.

    python examples/studies/search.py --data-dir ~/tensorflow_datasets

Temperature, weights, loss and learning rate of a small student are searched on validation images
(the last sixth of the training images) with `keras_kd.tuning`. What was found and the defaults then
train the same new students, and the defaults as many more as the search had trials, of which the
best on validation images counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
from _study import (
    Job,
    Results,
    StudySettings,
    command,
    decaying,
    keep,
    loaded,
    percent,
    read,
    run_study,
    table,
    unit,
    write_page,
)

import keras_kd

NAME = "search"
TASKS = ("mnist", "fashion_mnist")
SEARCHED = ("distillation_loss", "temperature", "student_loss_weight", "learning_rate")
# Seeds of the students that compare settings, apart from those of the search.
FIRST_SEED = 1000


@dataclass(frozen=True)
class Settings(StudySettings):
    """What the results depend on."""

    tasks: tuple[str, ...] = TASKS
    images: int = 12_000
    test_images: int = 10_000
    units: int = 32
    teacher_epochs: int = 15
    epochs: int = 15
    trials: int = 20
    seeds: int = 5
    batch_size: int = 128

    def load(self, task: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Images, shape (images, 28, 28, 1), and labels, by their purpose."""
        x, y, x_test, y_test = loaded(task, self.data_dir, self.work_dir)
        x, y = unit(x[: self.images]), y[: self.images]
        held_out = len(x) // 6
        return {
            "training": (x[:-held_out], y[:-held_out]),
            "validation": (x[-held_out:], y[-held_out:]),
            "test": (unit(x_test[: self.test_images]), y_test[: self.test_images]),
        }

    def store(self, task: str) -> Path:
        """Where the outputs of a task's teacher are."""
        return self.work_dir / f"{task}.store"


def build_student(units: int, seed: int) -> keras.Model:
    """784-units-10, probabilities out."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def train_teacher(settings: Settings, _: Results, task: str) -> dict[str, Any]:
    """Train a CNN on the labels and store its outputs."""
    keras.utils.set_random_seed(0)
    data = settings.load(task)
    x, y = data["training"]
    layers = [keras.Input((28, 28, 1), name="image")]
    for filters in (32, 64):
        layers += [
            keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Dropout(0.25),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile(
        decaying(2e-3, settings.teacher_epochs, len(x), settings.batch_size),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x, y, settings.batch_size, settings.teacher_epochs, verbose=0)
    keep(model, settings.work_dir / f"{task}-teacher.keras")
    keras_kd.teachers.StoredTeacher.create(model, (x, y), settings.store(task))
    return {"accuracy": model.evaluate(*data["test"], verbose=0)[1]}


def builder(settings: Settings, task: str, seed: int) -> Callable[[Any], keras_kd.Distiller]:
    """From hyperparameters to the Distiller of a new student."""
    stored = keras_kd.teachers.StoredTeacher(settings.store(task))
    return keras_kd.tuning.distiller_builder(
        stored, lambda hyperparameters: build_student(settings.units, seed)
    )


def joined(settings: Settings, task: str, seed: int) -> Any:
    """Training data with the teacher's outputs."""
    stored = keras_kd.teachers.StoredTeacher(settings.store(task))
    return stored.join(settings.load(task)["training"], settings.batch_size, seed=seed)


def train(settings: Settings, task: str, chosen: dict[str, Any], seed: int) -> tuple[float, float]:
    """The accuracy of a student with these hyperparameters, on validation and on test images."""
    hyperparameters = keras_tuner.HyperParameters()
    for name, value in chosen.items():
        hyperparameters.Fixed(name, value)
    distiller = builder(settings, task, seed)(hyperparameters)
    data = settings.load(task)
    distiller.fit(joined(settings, task, seed), epochs=settings.epochs, shuffle=False, verbose=0)
    validation, test = (
        distiller.student.predict(data[purpose][0], batch_size=500, verbose=0)
        for purpose in ("validation", "test")
    )
    return (
        float(np.mean(validation.argmax(-1) == data["validation"][1])),
        float(np.mean(test.argmax(-1) == data["test"][1])),
    )


def search(settings: Settings, _: Results, task: str) -> dict[str, Any]:
    """The best of random hyperparameters; what was tried before an interruption counts."""
    tuner = keras_tuner.RandomSearch(
        builder(settings, task, 0),
        keras_tuner.Objective("val_accuracy", "max"),
        max_trials=settings.trials,
        seed=0,
        directory=settings.work_dir,
        project_name=f"{task}-search",
    )
    tuner.search(
        joined(settings, task, 0),
        validation_data=settings.load(task)["validation"],
        epochs=settings.epochs,
        shuffle=False,
        verbose=0,
    )
    trials = sorted(tuner.oracle.trials.values(), key=lambda trial: -trial.score)
    return {
        "best": {name: trials[0].hyperparameters.values[name] for name in SEARCHED},
        "trials": [
            {**{name: trial.hyperparameters.values[name] for name in SEARCHED},
             "validation_accuracy": trial.score}
            for trial in trials
        ],
    }  # fmt: skip


def compare(settings: Settings, results: Results, task: str) -> dict[str, Any]:
    """New students with what was found, and the same ones with the defaults."""
    found = results[f"{task}-search"]["best"]
    seeds = range(FIRST_SEED, FIRST_SEED + settings.seeds)
    return {
        "searched": [train(settings, task, found, seed)[1] for seed in seeds],
        "default": [train(settings, task, {}, seed)[1] for seed in seeds],
    }


def repeat_default(settings: Settings, _: Results, task: str) -> dict[str, Any]:
    """The defaults at the cost of the search: of as many students the best on validation images."""
    trained = [train(settings, task, {}, seed) for seed in range(settings.trials)]
    validation, test = max(trained, key=lambda pair: pair[0])
    return {"validation_accuracy": validation, "accuracy": test}


def jobs(settings: Settings) -> list[Job]:
    """All that is computed."""
    listed = []
    for task in settings.tasks:
        teacher, found = f"{task}-teacher", f"{task}-search"
        listed += [
            Job(teacher, train_teacher, (), (task,)),
            Job(found, search, (teacher,), (task,)),
            Job(f"{task}-compared", compare, (teacher, found), (task,)),
            Job(f"{task}-repeated", repeat_default, (teacher,), (task,)),
        ]
    return listed


def page(settings: Settings, pages: Path) -> Path:
    """Write the page of what is finished."""
    kept = read(settings.work_dir)
    results, s = kept["jobs"], kept["settings"]
    sections = [
        "# Searching hyperparameters",
        f"Students 784-{s['units']}-10, {s['epochs']} epochs on {s['images'] - s['images'] // 6:,} "
        f"images; accuracy in percent on {s['test_images']:,} test images, mean and standard error "
        f"over {s['seeds']} seeds that the search did not use. “Best of {s['trials']}”: the "
        "defaults at the cost of the search, that is as many seeds, of which the best on "
        "validation images counts.",
    ]
    rows, found = [], []
    for task in s["tasks"]:
        if f"{task}-compared" in results:
            compared = results[f"{task}-compared"]
            gains = np.subtract(compared["searched"], compared["default"]).tolist()
            repeated = results.get(f"{task}-repeated", {}).get("accuracy")
            rows.append(
                [
                    task,
                    f"{100 * results[f'{task}-teacher']['accuracy']:.2f}",
                    percent(compared["default"]),
                    "" if repeated is None else f"{100 * repeated:.2f}",
                    percent(compared["searched"]),
                    percent(gains, "+"),
                ]
            )
        if f"{task}-search" in results:
            found += [
                [task, place, *(_short(trial[name]) for name in SEARCHED),
                 f"{100 * trial['validation_accuracy']:.2f}"]
                for place, trial in enumerate(results[f"{task}-search"]["trials"], 1)
                if place <= 3 or place == s["trials"]
            ]  # fmt: skip
    headings = ["", "teacher", "defaults", f"best of {s['trials']}", "searched", "gain"]
    if rows:
        sections.append(table(headings, rows))
    if found:
        names = [name.replace("_", " ") for name in SEARCHED]
        sections += [
            "## What was found",
            "The three best trials and the worst, by accuracy on validation images.",
            table(["", "rank", *names, "validation"], found),
        ]
    return write_page(pages, NAME, sections, kept, command(NAME, Settings, kept["settings"]))


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> None:
    run_study(__doc__, NAME, Settings, jobs, page, arguments)


if __name__ == "__main__":
    main()
