"""Is the student that `fit_to_device` finds better than simple choices that fit as well?

    python benchmarks/fit.py --dataset mnist --data-dir DIR --seeds 3

For each budget of flash and RAM: (found) the student of the search; (hand-made) the student of the
quickstart, as wide as fits; (random) forms that fit, drawn at random and trained to the end until
as many student epochs are used as in the search, the best on the validation images; (uniform) the
widest form with the same share of filters in every layer. All are distilled from the same teacher
and trained quantization-aware, as long as a finalist of the search. Accuracies are of the int8
file, in LiteRT, on test images that chose nothing. An interrupted run resumes with the same
command; a row of the JSON file is one student. On two quiet cores a seed takes about an hour.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_kd import fit_to_device, metrics, teachers, tflite
from keras_kd._files import replacing
from keras_kd.data import Dataset
from keras_kd.devices import Device
from keras_kd.quickstart import Settings
from keras_kd.quickstart.training import Training
from keras_kd.search.forms import Ladder, Proposal
from keras_kd.search.measuring import Cost, Maker
from keras_kd.search.selection import Found, measured, students_of_teacher
from keras_kd.search.teaching import Examples, Judge, Recipe, School, usual_loss
from keras_kd.tflite.microcontroller.operators import CORE_BYTES, kernel_bytes

BUDGETS = {
    "64 KB": Device("64 KB", "6 KB", name="64 KB"),
    "72 KB": Device("72 KB", "8 KB", name="72 KB"),
    "96 KB": Device("96 KB", "12 KB", name="96 KB"),
}
METHODS = ("found", "hand-made", "random", "uniform")
CALIBRATION = 500
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
        self, teacher: keras.Model, dataset: Dataset, device: Device, options: Any, seed: int
    ) -> None:
        cut = len(dataset.x_train) * 5 // 6
        self.teacher, self.dataset, self.device, self.seed = teacher, dataset, device, seed
        self.options = options
        self.train = Examples(dataset.x_train[:cut], dataset.y_train[:cut])
        self.validation = Examples(dataset.x_train[cut:], dataset.y_train[cut:])
        self.judge, outputs = Judge.of(teacher, self.validation, None)
        loss = usual_loss(self.judge.task, outputs, self.validation.y)
        self.recipe = Recipe(options.epochs, 64, 2e-3, 0.1, None, loss, 0.7, seed)
        self.maker = Maker(device, self.train.x)

    def found(self, directory: Path) -> dict[str, Any]:
        """The student of the search."""
        result = fit_to_device(
            self.teacher,
            (self.train.x, self.train.y),
            validation_data=(self.validation.x, self.validation.y),
            device=self.device,
            trials=self.options.trials,
            epochs=self.options.epochs,
            seed=self.seed,
            directory=directory,
        )
        winner = result.winner
        trained = sum(each.epochs for each in result.candidates)
        predicted = [each.cost == each.file_cost for each in result.candidates if each.file_cost]
        return {
            "student": winner.name,
            "student_epochs": trained,
            **self._row(result.model, winner.cost, winner.file_cost),
            "as_predicted": all(predicted),
        }

    def hand_made(self, school: School) -> dict[str, Any]:
        """The student of the quickstart, as wide as fits."""
        for scale in (4, 3, 2, 1.5, 1, 0.75, 0.5, 0.25):
            student = hand_made(self.dataset, scale, self.seed)
            cost = self.maker.cost_of_untrained(student, self.seed)
            if not cost.misses(self.device):
                return {"student": f"x{scale:g}", **self._finished(school, student, cost)}
        raise SystemExit(f"no hand-made student fits {self.device}")

    def uniform(self, school: School) -> dict[str, Any]:
        """The widest form with the same share of filters in every layer."""

        def look(proposal: Proposal) -> Found:
            return measured(
                proposal,
                lambda student: self.maker.cost_of_untrained(student, self.seed),
                lambda student: None,
            )

        # With one trial the only arm is the even one.
        [found] = students_of_teacher(self.teacher, self.device, 1, look, lambda: False)
        student = found.proposal.build()
        return {"student": found.proposal.name, **self._finished(school, student, found.cost)}

    def random(self, school: School, student_epochs: int) -> dict[str, Any]:
        """The best of some forms that fit, for so many student epochs."""
        random = np.random.default_rng(self.seed)
        ladder = Ladder(self.teacher)
        rows: list[dict[str, Any]] = []
        each = self.recipe.epochs + self.recipe.fine_tuning_epochs
        while not rows or (len(rows) + 0.5) * each < student_epochs:
            arm = ladder.arms[random.integers(len(ladder.arms))]
            proposal = ladder.form(arm, int(random.integers(len(ladder.WIDTHS))))
            student = proposal.build()
            if student.count_params() + RUNTIME > (self.device.flash_bytes or 0):
                # A weight takes a byte at least.
                continue
            cost = self.maker.cost_of_untrained(student, self.seed)
            if not cost.misses(self.device):
                finished = self._finished(school, student, cost)
                rows.append({"student": proposal.name, **finished})
        best = max(rows, key=lambda row: row["validation"])
        return {**best, "student_epochs": len(rows) * each}

    def _finished(self, school: School, student: keras.Model, cost: Cost) -> dict[str, Any]:
        school.teach(student, self.recipe.epochs, None, seed=self.seed)
        aware = self.maker.aware(student, CALIBRATION)
        school.quantize(aware, None, self.seed)
        model, _ = self.maker.file(aware, CALIBRATION)
        return self._row(model, cost, self.maker.cost(model, student.count_params()))

    def _row(self, model: tflite.TFLiteModel, before: Cost | None, after: Cost | None) -> Any:
        said = model.predict(self.dataset.x_test)
        return {
            "accuracy": metrics.accuracy(said, self.dataset.y_test),
            "validation": self.judge.of_file(model),
            "bytes": model.size,
            "flash": None if after is None else after.flash_bytes,
            "arena": None if after is None else after.arena_bytes,
            "as_predicted": before == after,
        }


def hand_made(dataset: Dataset, scale: float, seed: int) -> keras.Model:
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


def teacher_of(dataset: Dataset, seed: int, epochs: int, path: Path) -> keras.Model:
    """The teacher of a seed, trained on the training part; kept."""
    if not path.exists():
        cut = len(dataset.x_train) * 5 // 6
        with replacing(path) as temporary:
            Training(dataset.first(cut), seed).teacher(epochs).save(temporary)
    return keras.models.load_model(path)


def summarize(rows: Rows) -> str:
    """Means and standard errors over the seeds; differences of the search to the others."""
    lines = []
    for budget in dict.fromkeys(row["budget"] for row in rows.rows):
        by_seed = {
            method: {
                row["seed"]: 100 * row["accuracy"]
                for row in rows.rows
                if (row["budget"], row["method"]) == (budget, method)
            }
            for method in METHODS
        }
        for method, found in by_seed.items():
            own = by_seed["found"]
            gains = [own[seed] - value for seed, value in found.items() if seed in own]
            if gains:
                line = f"{budget:6} {method:10} {_mean(list(found.values()))}"
                lines.append(line + (f"  found - it {_mean(gains)}" if method != "found" else ""))
    count = sum(row["as_predicted"] for row in rows.rows)
    lines.append(f"files that took what was predicted: {count} of {len(rows.rows)}")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{np.mean(values):6.2f} (one seed)"
    return f"{np.mean(values):6.2f} +- {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("mnist", "fashion_mnist"))
    parser.add_argument("--data-dir", type=Path, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("fit-benchmark"), metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", nargs="+", choices=tuple(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=9, help="of a finalist")
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--images", type=int, help="of the training images; default: all")
    parser.add_argument("--test-images", type=int, help="default: all")
    options = parser.parse_args(argv)
    settings = Settings(
        dataset=options.dataset,
        data_dir=options.data_dir,
        training_images=options.images,
        test_images=options.test_images,
    )
    dataset = settings.load()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.output / "results.json")
    for seed in range(options.seeds):
        teacher = teacher_of(
            dataset, seed, options.teacher_epochs, options.output / f"teacher-{seed}.keras"
        )
        for budget in options.budgets:
            contest = Contest(teacher, dataset, BUDGETS[budget], options, seed)
            stored = teachers.StoredTeacher.create(
                teacher,
                (contest.train.x, contest.train.y),
                options.output / f"teacher-{seed}.store",
                dtype="float32",
            )
            school = School(stored, contest.train, contest.recipe)
            # The search says first how many epochs the random choice has.
            for method in METHODS:
                key = {"data": dataset.name, "seed": seed, "budget": budget, "method": method}
                if method not in options.methods or rows.get(**key):
                    continue
                if method == "found":
                    row = contest.found(options.output / f"search-{seed}-{budget.split()[0]}")
                elif method == "random":
                    found = rows.get(**{**key, "method": "found"})
                    row = contest.random(school, found["student_epochs"] if found else 1)
                elif method == "hand-made":
                    row = contest.hand_made(school)
                else:
                    row = contest.uniform(school)
                rows.add(**key, **row)
    text = summarize(rows)
    print(f"{dataset.name}; accuracy in % on {len(dataset.y_test)} test images\n{text}")
    return text


if __name__ == "__main__":
    main()
