"""Does it help? The same student of Fashion-MNIST, taught with every loss, on several seeds.

    python benchmarks/losses.py --data-dir ~/tensorflow_datasets --seeds 5
    python benchmarks/losses.py --data-dir ~/tensorflow_datasets --cost

Each loss is added to the loss on the labels, with the weight that its authors or the common
comparisons give it, and nothing else: `labels + weight * loss`. A seed fixes the student's initial
weights and the order of the images, so gains are differences between students that differ in the
loss alone. All learn from the same teacher. Every trial is written to `--output` as it ends; what
is there already is not run again. `--cost` measures the time of a step, on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from loss_results import Results, table
from loss_trials import ALONE, Classroom, Row, Setting
from step import repeated_step, rounds_of
from trials import Trial, run_trials, workers

import keras_kd.data
from keras_kd import losses, schedules


def one_after_warm_up(steps: int) -> schedules.Schedule:
    """A weight of 1 after as large a part of the training as in the paper: 20 of 240 epochs."""
    return schedules.warm_up(max(1, steps * 20 // 240))


STAGES = ("block1", "block2", "block3")

# loss, layers, weight beside the labels, arguments. See `loss_trials.convolutional_network` for
# the layers: "_before" is before the ReLU.
ROWS = [
    Row(losses.SoftTargets, (), 9, {"temperature": 4.0}),
    Row(losses.SoftCrossEntropy, (), 9, {"temperature": 4.0}),
    Row(losses.LogitsMSE, (), 1, {}),
    Row(losses.HardTargets, (), 1, {}),
    Row(losses.DecoupledKD, (), one_after_warm_up, {"temperature": 4.0, "alpha": 1.0, "beta": 8.0}),
    Row(losses.DIST, (), 1, {"temperature": 4.0, "inter_weight": 2.0, "intra_weight": 2.0}),
    # 9 beside 0.1 for the labels, times the T^2 that the loss leaves out.
    Row(losses.StandardizedSoftTargets, (), 360, {"temperature": 2.0}),
    Row(losses.DirectionMatching, (), 1, {}),
    Row(losses.OutputDifference, (), 1, {"student_layer_name": "embedding"}),
    Row(losses.Hint, ("block2",), 100, {}),
    Row(losses.ChannelWiseDistillation, ("block3",), 50, {}),
    Row(losses.AttentionTransfer, STAGES, 1000, {}),
    Row(losses.FactorTransfer, ("block3",), 200, {}),
    Row(losses.NeuronSelectivityTransfer, STAGES, 50, {}),
    Row(losses.ActivationBoundary, ("block3_before",), 1, {}),
    Row(
        losses.PartialL2,
        ("block3_before",),
        0.001,
        {"margin": losses.PartialL2.margin_from_batch_normalization},
    ),
    Row(losses.HierarchicalContext, STAGES, 5, {}),
    # 2.5 times the batch size, by which the loss divides twice where the authors divide once.
    Row(losses.InterChannelCorrelation, ("block3",), 160, {}),
    Row(losses.VariationalInformation, ("block3",), 1, {}),
    Row(losses.FlowOfSolution, ("block2", "block3"), 50, {}),
    Row(losses.SimpleRecipe, ("block3_before",), 1, {"exponent": 4.0}),
    Row(losses.SimilarityPreserving, ("block3",), 3000, {}),
    Row(losses.CorrelationCongruence, ("embedding",), 0.02, {}),
    Row(losses.ProbabilisticTransfer, ("embedding",), 30000, {}),
    Row(losses.Relational, ("embedding",), 1, {"distance_weight": 25.0, "angle_weight": 50.0}),
    Row(losses.ContrastiveRepresentation, ("embedding",), 0.8, {}),
]
CHOICES: dict[str, Row | None] = {"alone": None, **{row.loss.__name__: row for row in ROWS}}


def described(name: str) -> dict[str, Any]:
    """The description under which results of a loss are filed."""
    row = CHOICES[name]
    return ALONE if row is None else row.description


@cache
def classroom(setting: Setting, data_dir: Path | None, kept: Path) -> Classroom:
    """The teacher and the images, which a process loads once."""
    return Classroom(keras_kd.data.load("fashion_mnist", data_dir), setting, kept)


def teacher_accuracy(*place: Any) -> float:
    """The teacher's accuracy in percent, after training it where it has not been."""
    room = classroom(*place)
    return room.score(room.teacher)


def trial(name: str, seed: int, *place: Any) -> dict[str, float]:
    """Train one student: its accuracy in percent, and how long that took."""
    start = time.perf_counter()
    accuracy = classroom(*place).trial(CHOICES[name], seed)
    return {"accuracy": accuracy, "seconds": time.perf_counter() - start}


def costs(names: list[str], rounds: int, *place: Any) -> dict[str, float]:
    """Median milliseconds of a step with each loss, on one core; the losses take turns."""
    room = classroom(*place)
    batch = next(iter(room.batches(room.setting.batch_size, 1, seed=0)))
    batches = tf.data.Dataset.from_tensors(batch).cache()
    steps = {name: repeated_step(room.learner(CHOICES[name], 0)[1], batches) for name in names}
    return {
        name: statistics.median(times)
        for name, times in rounds_of(steps, rounds, turn=4, uncounted=1).items()
    }


def run(names: list[str], seeds: range, place: tuple, jobs: int, results: Results) -> Iterator[str]:
    """Train what is missing in the results; see `trials.run_trials`."""
    setting = asdict(place[0])
    trials = [
        Trial(
            f"{name}, seed {seed}",
            {**described(name), "setting": setting, "seed": seed},
            (name, seed),
        )
        for seed in seeds
        for name in names
    ]
    teacher = teacher_accuracy, {"loss": "the teacher", "setting": setting}
    return run_trials(trial, trials, place, jobs, results, teacher)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="of tensorflow-datasets")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--output", type=Path, default="losses.json", metavar="FILE")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/keras_kd", help="keeps the teacher"
    )
    parser.add_argument("--only", nargs="+", choices=CHOICES, metavar="LOSS", default=[*CHOICES])
    parser.add_argument(
        "--validation", action="store_true", help="score on training images that are held out"
    )
    parser.add_argument("--cost", action="store_true", help="measure the time of a step instead")
    parser.add_argument("--rounds", type=int, default=200, help="steps of each loss with --cost")
    for size in ("teacher_images", "student_images", "teacher_epochs", "student_epochs"):
        option = f"--{size.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(Setting, size))
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error("a standard error needs at least two seeds: --seeds 3")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    setting = Setting(
        scored_on="validation" if options.validation else "test",
        teacher_images=options.teacher_images,
        student_images=options.student_images,
        teacher_epochs=options.teacher_epochs,
        student_epochs=options.student_epochs,
    )
    place = setting, options.data_dir, options.cache
    results, seeds = Results(options.output), range(options.seeds)
    if options.cost:
        with workers(1) as pool:
            took = pool.submit(costs, options.only, options.rounds, *place).result()
        for name, milliseconds in took.items():
            description = {**described(name), "setting": asdict(setting), "cost": True}
            results.add(description, milliseconds=milliseconds)
    else:
        for line in run(options.only, seeds, place, options.jobs, results):
            print(line, file=sys.stderr, flush=True)
    names = ["alone", *(name for name in options.only if name != "alone")]
    print(table([described(name) for name in names], asdict(setting), seeds, results))


if __name__ == "__main__":
    main()
