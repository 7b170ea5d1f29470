"""Settings of a quickstart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keras_kd._checks import check_choice, problem, three_parts
from keras_kd.data import Splits, load, load_sample
from keras_kd.data.named import NAMES


@dataclass(frozen=True)
class Settings:
    """The settings of one run.

    Attributes:
        output: the directory for the results; its parent exists.
        seed: of initial weights and of the order of the examples. The same seed gives the same
            results, but for measured times.
        epochs: of the teacher, of the student alone and of the distilled student. Pruning and
            quantization-aware training start from the distilled student and take half as many.
        dataset: "mnist" or "fashion_mnist" through TFDS; None: the bundled sample of MNIST.
        data_dir: the TFDS data directory; None: TFDS' default.
        training_images: use only so many; None: all.
        test_images: use only so many; None: all.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a value is out of range, or a data directory comes without a data set.
    """

    output: Path = Path("quickstart-results")
    seed: int = 0
    epochs: int = 6
    dataset: str | None = None
    data_dir: Path | None = None
    training_images: int | None = None
    test_images: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output))
        _check_integer("seed", self.seed, at_least=0, at_most=2**32 - 1)
        _check_integer("epochs", self.epochs, at_least=1)
        for name in ("training_images", "test_images"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), at_least=1)
        if self.dataset is not None:
            check_choice("dataset", self.dataset, NAMES)
        elif self.data_dir is not None:
            raise problem(
                f"data_dir={str(self.data_dir)!r} without a data set",
                f"dataset as one of {', '.join(map(repr, NAMES))}",
                "name the data set to use, or leave data_dir out for the bundled sample",
            )

    @property
    def fine_tuning_epochs(self) -> int:
        """How long a student is pruned or trained quantization-aware."""
        return (self.epochs + 1) // 2

    def load(self) -> Splits:
        """The data set, or the requested part of it.

        Raises:
            FileNotFoundError: if the data directory does not hold it.
        """
        dataset = load_sample() if self.dataset is None else load(self.dataset, self.data_dir)
        return dataset.first(self.training_images, self.test_images)


def _check_integer(name: str, value: int, at_least: int, at_most: int | None = None) -> None:
    expected = f"a whole number, at least {at_least}"
    if at_most is not None:
        expected += f" and at most {at_most}"
    message = three_parts(f"{name}={value!r}", expected, f"try {name}={max(at_least, 5)}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(message)
    if value < at_least or (at_most is not None and value > at_most):
        raise ValueError(message)
