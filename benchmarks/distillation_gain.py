"""How much does a teacher help? The student of the quickstart, alone and taught, on several seeds.

    python benchmarks/distillation_gain.py --seeds 5

Each seed trains a teacher, a student on the labels alone, and the same student, from the same first
weights and for the same number of epochs, on the labels and the teacher. What is printed are
accuracies on the test images, their mean difference and its standard error. About a minute and a
half per seed on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from keras_kd.data import Splits
from keras_kd.metrics import accuracy
from keras_kd.quickstart import Settings
from keras_kd.quickstart.training import Training, compute_deterministically


def accuracies(dataset: Splits, seed: int, epochs: int) -> tuple[float, float, float]:
    """The test accuracies, in percent, of the teacher, the student alone and the distilled one."""
    training = Training(dataset, seed)
    teacher = training.teacher(epochs)
    models = teacher, training.alone(epochs), training.distilled(teacher, epochs)
    return tuple(
        100 * accuracy(model.predict(dataset.x_test, batch_size=256, verbose=0), dataset.y_test)
        for model in models
    )


def mean_and_standard_error(values: list[float]) -> tuple[float, float]:
    """The mean of `values` and the standard error of that mean."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def main() -> None:
    defaults = Settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument("--dataset", choices=("mnist", "fashion_mnist"))
    parser.add_argument("--data-dir", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("a standard error needs at least two seeds: --seeds 5")
    settings = Settings(
        epochs=arguments.epochs, dataset=arguments.dataset, data_dir=arguments.data_dir
    )
    dataset = settings.load()
    compute_deterministically()

    print(
        f"{dataset.name}, {settings.epochs} epochs; accuracy in % on {len(dataset.y_test)} images"
    )
    print(f"{'seed':>4} {'teacher':>8} {'alone':>8} {'distilled':>10} {'gain':>7}")
    gains = []
    for seed in range(arguments.seeds):
        teacher, alone, distilled = accuracies(dataset, seed, settings.epochs)
        gains.append(distilled - alone)
        print(
            f"{seed:4} {teacher:8.2f} {alone:8.2f} {distilled:10.2f} {gains[-1]:+7.2f}", flush=True
        )
    mean, error = mean_and_standard_error(gains)
    print(f"mean gain {mean:+.2f} points, standard error {error:.2f}")


if __name__ == "__main__":
    main()
