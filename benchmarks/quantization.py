"""Who should train a student for few bits? On Fashion-MNIST, measured on the `.tflite` itself.

    python benchmarks/quantization.py --data-dir ~/tensorflow_datasets --seeds 5

Each seed trains a small student in float, alone with the labels and taught. From these two come
files of 8-bit and 4-bit weights: by quantization after training, at once or after as many further
epochs in float as the others get, by quantization-aware training on the labels, and by
quantization-aware distillation. What is compared has the same first weights, epochs, images and
learning rates. Every trial is written to `--output` as it ends; what is there already is not run
again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import loss_trials
import numpy as np
from distillation_gain import mean_and_standard_error
from loss_results import Results
from loss_trials import Classroom
from quantization_trials import Setting, Way, Workshop
from trials import Trial, run_trials

import keras_kd.data

CALIBRATION_IMAGES = 500

# In the order in which they are run.
WAYS = [
    *(Way(start, None, 32) for start in ("taught", "alone")),
    *(
        way
        for bits in (4, 8)
        for way in (
            Way("taught", "teacher", bits, aware=True),
            Way("taught", "labels", bits, aware=True),
            Way("taught", None, bits),
        )
    ),
    *(Way("alone", None, bits) for bits in (4, 8)),
    *(Way("alone", "labels", bits, aware=True) for bits in (4, 8)),
    # As long as quantization-aware training takes, but in float.
    *(Way("taught", "teacher", bits) for bits in (32, 4, 8)),
    *(Way("alone", "labels", bits) for bits in (32, 4, 8)),
]
HEAD = (
    "| weights | float student | then | accuracy, % | against float | bytes |\n"
    "| ---: | --- | --- | ---: | ---: | ---: |"
)


@cache
def workshop(setting: Setting, data_dir: Path | None, kept: Path) -> Workshop:
    """The images and the teacher, which a process loads once."""
    dataset = keras_kd.data.load("fashion_mnist", data_dir)
    room = Classroom(dataset, loss_trials.Setting(scored_on=setting.scored_on), kept)
    return Workshop(room, setting, dataset.x_train[:CALIBRATION_IMAGES], kept)


def teacher_accuracy(*place: object) -> float:
    """The teacher's accuracy in percent, after training it where it has not been."""
    room = workshop(*place).room
    return room.score(room.teacher)


def trial(way: Way, seed: int, *place: object) -> dict[str, float]:
    """Make one file: its accuracy in percent, its bytes, and how long that took."""
    start = time.perf_counter()
    measured = workshop(*place).trial(way, seed)
    return {**measured, "seconds": time.perf_counter() - start}


def run(ways: list[Way], seeds: range, place: tuple, jobs: int, results: Results) -> Iterator[str]:
    """Make the files that are missing in the results; see `trials.run_trials`."""
    setting = asdict(place[0])
    trials = [
        Trial(
            f"{described(way)}, seed {seed}",
            {**asdict(way), "setting": setting, "seed": seed},
            (way, seed),
        )
        for way in ways
        for seed in seeds
    ]
    teacher = teacher_accuracy, {"start": "the teacher", "setting": setting}
    return run_trials(trial, trials, place, jobs, results, teacher)


def described(way: Way) -> str:
    """A way in words: the cells that begin its row of the table."""
    tutor = {None: "", "labels": "labels alone", "teacher": "labels and teacher"}[way.further]
    if way.aware:
        then = f"quantization-aware, {tutor}"
    else:
        then = f"further in float, {tutor}" if tutor else ""
        if way.weight_bits < 32:
            then = f"{then}, then rounded" if then else "rounded"
    weights = "float32" if way.weight_bits == 32 else f"{way.weight_bits} bits"
    return f"{weights} | {way.start} | {then}"


def table(ways: list[Way], setting: Setting, seeds: range, results: Results) -> str:
    """A Markdown table of the ways that have all their trials.

    Differences are taken seed by seed, from the float student that the way began with.
    """

    def measured(way: Way) -> list[dict[str, float] | None]:
        descriptions = ({**asdict(way), "setting": asdict(setting), "seed": seed} for seed in seeds)
        return [results.find(description) for description in descriptions]

    def accuracies(way: Way) -> np.ndarray:
        return np.array([trial["accuracy"] for trial in measured(way)])

    lines = [HEAD]
    for way in sorted(ways, key=lambda way: (-way.weight_bits, way.aware, way.start)):
        before = Way(way.start, None, 32)
        if None in measured(way) or None in measured(before):
            continue
        difference = "" if way == before else _mean(accuracies(way) - accuracies(before), "+.2f")
        size = np.mean([trial["bytes"] for trial in measured(way)])
        lines.append(
            f"| {described(way)} | {_mean(accuracies(way), '.2f')} | {difference} | {size:.0f} |"
        )
    return "\n".join(lines)


def _mean(values: np.ndarray, form: str) -> str:
    """The mean of the values and its standard error."""
    mean, error = mean_and_standard_error(values)
    return f"{mean:{form}} ± {error:.2f}"


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of tensorflow-datasets")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, default="quantization.json", metavar="FILE")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache/keras_kd",
        help="keeps the teacher and the float students",
    )
    parser.add_argument(
        "--validation", action="store_true", help="score on training images that are held out"
    )
    parser.add_argument(
        "--bits", type=int, nargs="+", choices=(4, 8), default=(4, 8), help="of the weights"
    )
    for size in ("images", "float_epochs", "further_epochs"):
        option = f"--{size.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(Setting, size))
    for rate in ("float_learning_rate", "further_learning_rate"):
        option = f"--{rate.replace('_', '-')}"
        parser.add_argument(option, type=float, default=getattr(Setting, rate))
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("a standard error needs at least two seeds: --seeds 5")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    setting = Setting(
        scored_on="validation" if options.validation else "test",
        images=options.images,
        float_epochs=options.float_epochs,
        further_epochs=options.further_epochs,
        float_learning_rate=options.float_learning_rate,
        further_learning_rate=options.further_learning_rate,
    )
    ways = [way for way in WAYS if way.weight_bits in (32, *options.bits)]
    results, seeds = Results(options.output), range(options.seeds)
    place = setting, options.data_dir, options.cache
    for line in run(ways, seeds, place, options.jobs, results):
        print(line, file=sys.stderr, flush=True)
    print(table(ways, setting, seeds, results))


if __name__ == "__main__":
    main()
