"""Hyperparameters of a distillation, searched with KerasTuner (the extra `tuning`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_kd._checks import check_number, problem
from keras_kd.distiller import Distiller
from keras_kd.losses import DIST, DecoupledKD, SoftTargets, StandardizedSoftTargets
from keras_kd.teachers import as_teacher

__all__ = ["Space", "distiller_builder"]

# What a trial without a search uses: what `Distiller` and Adam do by default.
_DEFAULTS = {"temperature": 4.0, "student_loss_weight": 0.5, "learning_rate": 1e-3}
_FIX = "pass (lowest, highest), such as {example}, or the same number twice to fix it"


def _losses() -> dict[str, Callable[[float], Any]]:
    return {
        "soft_targets": SoftTargets,
        "standardized_soft_targets": StandardizedSoftTargets,
        "dist": DIST,
        "decoupled_kd": DecoupledKD,
    }


@dataclass(frozen=True)
class Space:
    """What is searched, and where.

    Attributes:
        temperature: the lowest and the highest one, searched on a logarithmic scale.
        student_loss_weight: the share of the loss on labels, 0..1.
        learning_rate: of the optimizer, on a logarithmic scale.
        losses: by name, what makes a distillation loss from a temperature. The first one is the
            default.

    Raises:
        TypeError: if a bound is no number, or `losses` no mapping.
        ValueError: if bounds are out of range or in the wrong order, or there is no loss.
    """

    temperature: tuple[float, float] = (1.0, 20.0)
    student_loss_weight: tuple[float, float] = (0.0, 0.9)
    learning_rate: tuple[float, float] = (1e-4, 1e-2)
    losses: Mapping[str, Callable[[float], Any]] = field(default_factory=_losses)

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, "(1.0, 20.0)", above=0)
        _check_range(
            "student_loss_weight", self.student_loss_weight, "(0.0, 0.9)", at_least=0, at_most=1
        )
        _check_range("learning_rate", self.learning_rate, "(1e-4, 1e-2)", above=0)
        if not isinstance(self.losses, Mapping) or not self.losses:
            raise problem(
                f"losses={self.losses!r}",
                "a dict with one or several functions that make a loss from a temperature",
                "pass {'soft_targets': keras_kd.losses.SoftTargets}, for example",
                kind=ValueError if isinstance(self.losses, Mapping) else TypeError,
            )


def distiller_builder(
    teacher: Any,
    student: Callable[[Any], Any],
    loss: Any = "sparse_categorical_crossentropy",
    metrics: Sequence[Any] = ("accuracy",),
    *,
    space: Space | None = None,
    optimizer: Callable[..., Any] = keras.optimizers.Adam,
) -> Callable[[Any], Distiller]:
    """Make the function from hyperparameters to a compiled Distiller for KerasTuner.

    The search is KerasTuner's own: `RandomSearch`, `Hyperband`, `BayesianOptimization`. With a
    `StoredTeacher` a trial costs what its student costs.

    Args:
        teacher: what a `Distiller` takes as one. All trials share it.
        student: a function of a `keras_tuner.HyperParameters` that builds a new student, whose
            size can be searched, too.
        loss: the loss on labels, as `compile` takes it.
        metrics: as `compile` takes them.
        space: what is searched. None: `Space()`.
        optimizer: makes an optimizer from `learning_rate=`.

    Returns:
        A function of a `keras_tuner.HyperParameters`. Its hyperparameters are called
        "distillation_loss", "temperature", "student_loss_weight" and "learning_rate"; by default
        they are those of a `Distiller` without arguments and of Adam, within the space.

    Raises:
        TypeError: if `student` is a model: its weights would go from one trial to the next.

    Example:
        ```python
        builder = keras_kd.tuning.distiller_builder(teacher, lambda hp: build_student())
        tuner = keras_tuner.RandomSearch(builder, "val_accuracy", max_trials=20)
        tuner.search(x, y, validation_data=(x_val, y_val), epochs=5)
        print(tuner.get_best_hyperparameters()[0].values)
        ```

    References:
        O'Malley et al.: KerasTuner, 2019. https://github.com/keras-team/keras-tuner
    """
    if not callable(student) or isinstance(student, keras.Model):
        raise problem(
            f"student of type {type(student).__name__}",
            "a function of hyperparameters that builds a new student for each trial",
            "pass lambda hp: build_student()",
            kind=TypeError,
        )
    shared = as_teacher(teacher)
    searched = Space() if space is None else space

    def build(hyperparameters: Any) -> Distiller:
        name = hyperparameters.Choice("distillation_loss", list(searched.losses))
        temperature = _number(hyperparameters, "temperature", searched.temperature, "log")
        weight = _number(
            hyperparameters, "student_loss_weight", searched.student_loss_weight, "linear"
        )
        rate = _number(hyperparameters, "learning_rate", searched.learning_rate, "log")
        distiller = Distiller(
            shared,
            student(hyperparameters),
            searched.losses[name](temperature),
            student_loss_weight=weight,
        )
        distiller.compile(optimizer(learning_rate=rate), loss, metrics=list(metrics))
        return distiller

    return build


def _number(hyperparameters: Any, name: str, bounds: tuple[float, float], sampling: str) -> float:
    lowest, highest = bounds
    if lowest == highest:
        return hyperparameters.Fixed(name, lowest)
    default = min(max(_DEFAULTS[name], lowest), highest)
    return hyperparameters.Float(name, lowest, highest, sampling=sampling, default=default)


def _check_range(name: str, bounds: Any, example: str, **limits: float) -> None:
    fix = _FIX.format(example=example)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise problem(f"{name}={bounds!r}", "two numbers", fix, kind=TypeError)
    lowest, highest = (check_number(name, bound, fix=fix, **limits) for bound in bounds)
    if lowest > highest:
        raise problem(f"{name}={bounds!r}", "the lowest number first", fix)
