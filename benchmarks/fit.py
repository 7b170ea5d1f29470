"""Is the student that `fit_to_device` finds better than simple choices that fit as well?

    python benchmarks/fit.py --dataset mnist --data-dir DIR --seeds 3

For each budget of flash and RAM: (found) the student of the search; (hand-made) the student of the
quickstart, as wide as fits; (random) forms that fit, drawn at random and trained to the end until
as many student epochs are used as in the search, the best on the validation images; (uniform) the
widest form with the same share of filters in every layer, which is what `remove_filters` makes. All
are distilled from the same teacher with the same stored outputs, for as many epochs as a finalist
of the search, and trained quantization-aware. Accuracies are of the int8 file, in LiteRT, on test
images that chose nothing. Each seed has its own teacher, 10,000 training images and 10,000
validation images, all of them from the training images of the data set. An interrupted run resumes
with the same command; a row of results.json is one student, with the CPU seconds that it took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_kd import fit_to_device, metrics, teachers, tflite
from keras_kd._files import replacing
from keras_kd._tables import Table
from keras_kd.data import Splits, load, load_sample
from keras_kd.devices import Device
from keras_kd.quickstart.training import Training
from keras_kd.search.forms import Form, Ladder, Proposal
from keras_kd.search.measuring import Cost, Maker
from keras_kd.search.selection import Found, Guess, measured, rungs, widest
from keras_kd.search.teaching import Examples, Judge, Recipe, School, usual_loss
from keras_kd.tflite.microcontroller.operators import CORE_BYTES, kernel_bytes

BUDGETS = {
    "64 KB": Device("64 KB", "6 KB", name="64 KB"),
    "72 KB": Device("72 KB", "8 KB", name="72 KB"),
    "96 KB": Device("96 KB", "12 KB", name="96 KB"),
}
METHODS = ("found", "hand-made", "random", "uniform")
CALIBRATION = 500
# Half as many filters, or four times as many, as the student of the quickstart.
SCALES = (4, 3.5, 3, 2.5, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25)
RUNTIME = CORE_BYTES + kernel_bytes(("CONV_2D", "FULLY_CONNECTED"))


class Rows:
    """The finished students, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def get(self, **keys: Any) -> dict[str, Any] | None:
        """The row with these values."""
        return next((row for row in self.rows if keys.items() <= row.items()), None)

    def add(self, **row: Any) -> None:
        """Keep a row."""
        self.rows.append(row)
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.rows, indent=1) + "\n")
        print(row, flush=True)


class Contest:
    """The methods on one teacher and one budget."""

    def __init__(
        self, teacher: keras.Model, dataset: Splits, device: Device, options: Any, seed: int
    ) -> None:
        self.teacher, self.dataset, self.device, self.seed = teacher, dataset, device, seed
        self.options = options
        self.train, self.validation = parts(dataset, options.images)
        self.judge, outputs = Judge.of(teacher, self.validation, None)
        loss = usual_loss(self.judge.task, outputs, self.validation.y)
        self.recipe = Recipe(options.epochs, 64, options.learning_rate, 0.1, None, loss, 0.7, seed)
        self.maker = Maker(device, self.train.x)
        rounds = list(rungs(options.trials, options.finalists, options.epochs))
        self.epochs = sum(epochs for _, epochs in rounds)
        self.ladder = Ladder(teacher)
        self.looked_at: dict[str, Found] = {}

    def found(self, directory: Path, stored: Path) -> dict[str, Any]:
        """The student of the search."""
        directory.mkdir(exist_ok=True)
        if not (directory / "teacher.store").exists():
            shutil.copy(stored, directory / "teacher.store")
        result = fit_to_device(
            self.teacher,
            (self.train.x, self.train.y),
            validation_data=(self.validation.x, self.validation.y),
            device=self.device,
            trials=self.options.trials,
            finalists=self.options.finalists,
            epochs=self.options.epochs,
            learning_rate=self.options.learning_rate,
            seed=self.seed,
            directory=directory,
        )
        winner = result.winner
        finished = [each for each in result.candidates if each.file_cost]
        return {
            "student": winner.name,
            "student_epochs": sum(each.epochs for each in result.candidates),
            **self._row(result.model, winner.cost, winner.file_cost),
            "files": len(finished),
            "as_predicted": sum(each.cost == each.file_cost for each in finished),
        }

    def hand_made(self, school: School) -> dict[str, Any]:
        """The student of the quickstart, as wide as fits."""
        for scale in SCALES:
            student = hand_made(self.dataset, scale, self.seed)
            if not self._may_fit(student):
                continue
            cost = self.maker.cost_of_untrained(student, self.seed)
            if not cost.misses(self.device):
                return {"student": f"x{scale:g}", **self._finished(school, student, cost)}
        raise SystemExit(f"no hand-made student fits {self.device}")

    def uniform(self, school: School) -> dict[str, Any]:
        """The widest form with the same share of filters in every layer."""
        guess = Guess(self.ladder, self.device)
        _, found = widest(self.ladder, Form(), self.device, guess, self._look, most=8)
        if found is None:
            raise SystemExit(f"no form with the same share in every layer fits {self.device}")
        student = found.proposal.build()
        return {"student": found.proposal.name, **self._finished(school, student, found.cost)}

    def random(self, school: School, student_epochs: int) -> dict[str, Any]:
        """The best of some forms that fit, for so many student epochs."""
        random = np.random.default_rng(self.seed)
        rows: list[dict[str, Any]] = []
        each = self.epochs + self.recipe.fine_tuning_epochs
        while not rows or (len(rows) + 0.5) * each < student_epochs:
            arm = self.ladder.arms[random.integers(len(self.ladder.arms))]
            proposal = self.ladder.form(arm, int(random.integers(len(self.ladder.WIDTHS))))
            student = proposal.build()
            if not self._may_fit(student):
                continue
            found = self._look(proposal)
            if found.fits(self.device):
                finished = self._finished(school, student, found.cost)
                rows.append({"student": proposal.name, **finished})
        best = max(rows, key=lambda row: row["validation"])
        return {
            **best,
            "student_epochs": len(rows) * each,
            "files": len(rows),
            "as_predicted": sum(row["as_predicted"] for row in rows),
        }

    def _may_fit(self, student: keras.Model) -> bool:
        # A weight takes a byte at least; what is left out saves the time to make a file.
        weights = sum(math.prod(each.shape) for each in student.weights if len(each.shape) > 1)
        return weights + RUNTIME <= (self.device.flash_bytes or 0)

    def _look(self, proposal: Proposal) -> Found:
        if proposal.name not in self.looked_at:
            self.looked_at[proposal.name] = measured(
                proposal,
                lambda student: self.maker.cost_of_untrained(student, self.seed),
                lambda student: None,
            )
        return self.looked_at[proposal.name]

    def _finished(self, school: School, student: keras.Model, cost: Cost | None) -> Any:
        school.teach(student, self.epochs, None, seed=self.seed)
        aware = self.maker.aware(student, CALIBRATION)
        school.quantize(aware, None, self.seed)
        model, _ = self.maker.file(aware, CALIBRATION)
        after = self.maker.cost(model, student.count_params())
        row = self._row(model, cost, after)
        return {**row, "files": 1, "as_predicted": int(cost == after)}

    def _row(self, model: tflite.TFLiteModel, before: Cost | None, after: Cost | None) -> Any:
        said = model.predict(self.dataset.x_test)
        return {
            "accuracy": metrics.accuracy(said, self.dataset.y_test),
            "validation": self.judge.of_file(model),
            "bytes": model.size,
            "flash": None if after is None else after.flash_bytes,
            "arena": None if after is None else after.arena_bytes,
        }


def parts(dataset: Splits, cut: int) -> tuple[Examples, Examples]:
    """What students learn from, and what chooses between them."""
    return (
        Examples(dataset.x_train[:cut], dataset.y_train[:cut]),
        Examples(dataset.x_train[cut:], dataset.y_train[cut:]),
    )


def hand_made(dataset: Splits, scale: float, seed: int) -> keras.Model:
    """The student of the quickstart, wider or narrower."""
    keras.utils.set_random_seed(seed)
    stack: list[Any] = [keras.Input(dataset.image_shape, name="image")]
    for filters in (8, 16, 16):
        stack += [
            layers.Conv2D(max(2, round(filters * scale)), 3, 2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
        ]
    return keras.Sequential(
        [*stack, layers.Flatten(), layers.Dense(dataset.number_of_classes), layers.Softmax()]
    )


def sample(dataset: Splits, images: int, seed: int) -> Splits:
    """A data set with some of the training images, others for each seed."""
    order = np.random.default_rng(seed).permutation(len(dataset.x_train))[:images]
    return dataclasses.replace(
        dataset, x_train=dataset.x_train[order], y_train=dataset.y_train[order]
    )


def teacher_of(dataset: Splits, seed: int, epochs: int, path: Path) -> keras.Model:
    """The teacher of a seed, trained on the training part; kept."""
    if not path.exists():
        with replacing(path) as temporary:
            Training(dataset, seed).teacher(epochs).save(temporary)
    return keras.models.load_model(path)


def summarize(rows: list[dict[str, Any]]) -> Table:
    """Means and standard errors over the seeds; differences of the search to the others."""
    table = []
    for budget in dict.fromkeys(row["budget"] for row in rows):
        by_method = {
            method: {
                row["seed"]: row
                for row in rows
                if (row["budget"], row["method"]) == (budget, method)
            }
            for method in METHODS
        }
        own = by_method["found"]
        for method, seeds in by_method.items():
            gains = [
                100 * (own[seed]["accuracy"] - row["accuracy"])
                for seed, row in seeds.items()
                if seed in own and method != "found"
            ]
            if seeds:
                table.append(
                    (
                        budget,
                        method,
                        f"{len(seeds)}",
                        mean_and_error([100 * row["accuracy"] for row in seeds.values()]),
                        mean_and_error(gains) if gains else "-",
                        f"{np.mean([row['bytes'] for row in seeds.values()]):,.0f}",
                        f"{np.mean([row['cpu_seconds'] for row in seeds.values()]):.0f}",
                    )
                )
    header = ("budget", "student", "seeds", "accuracy %", "found - it", "file B", "CPU s")
    return Table(header, table)


def mean_and_error(values: list[float]) -> str:
    """A mean and its standard error, which needs two values."""
    if len(values) < 2:
        return f"{np.mean(values):.2f}"
    return f"{np.mean(values):.2f} +- {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("mnist", "fashion_mnist"), help="default: bundled")
    parser.add_argument("--data-dir", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("fit-benchmark"), metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", nargs="+", choices=tuple(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--finalists", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=9, help="of a finalist in the last round")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=10_000, help="that students learn from")
    parser.add_argument("--validation-images", type=int, default=10_000, help="that choose")
    parser.add_argument("--test-images", type=int, help="default: all")
    options = parser.parse_args(argv)
    every = load_sample() if options.dataset is None else load(options.dataset, options.data_dir)
    every = every.first(None, options.test_images)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.output / "results.json")
    for seed in range(options.seeds):
        dataset = sample(every, options.images + options.validation_images, seed)
        of_seed = options.output / f"teacher-{seed}"
        path = of_seed.with_suffix(".keras")
        learned = dataset.first(options.images)
        teacher = teacher_of(learned, seed, options.teacher_epochs, path)
        stored = teachers.StoredTeacher.create(
            teacher,
            (learned.x_train, learned.y_train),
            of_seed.with_suffix(".store"),
            dtype="float32",
        )
        for budget in options.budgets:
            contest = Contest(teacher, dataset, BUDGETS[budget], options, seed)
            school = School(stored, contest.train, contest.recipe)
            # The search says first how many epochs the random choice has.
            for method in METHODS:
                key = {"data": dataset.name, "seed": seed, "budget": budget, "method": method}
                if method not in options.methods or rows.get(**key):
                    continue
                began = time.process_time()
                if method == "found":
                    directory = options.output / f"search-{seed}-{budget.split()[0]}"
                    row = contest.found(directory, of_seed.with_suffix(".store"))
                elif method == "random":
                    found = rows.get(**{**key, "method": "found"})
                    row = contest.random(school, found["student_epochs"] if found else 1)
                elif method == "hand-made":
                    row = contest.hand_made(school)
                else:
                    row = contest.uniform(school)
                rows.add(**key, **row, cpu_seconds=round(time.process_time() - began, 1))
    files, kept = (sum(row[name] for row in rows.rows) for name in ("files", "as_predicted"))
    text = (
        f"{every.name}; accuracy on {len(every.y_test):,} test images\n{summarize(rows.rows)}\n"
        f"files that took what was predicted before training: {kept} of {files}"
    )
    print(text)
    return text


if __name__ == "__main__":
    main()
