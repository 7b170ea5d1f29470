"""From a teacher and a device to the best student that fits, in one call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_kd import devices
from keras_kd._checks import check_integer, check_number, problem
from keras_kd._keras import check_model, is_model
from keras_kd._state_files import using
from keras_kd.devices import Device
from keras_kd.search.measuring import check_measurable
from keras_kd.search.result import FitResult, check_goal
from keras_kd.search.rounds import Search
from keras_kd.search.state import State, identity_of
from keras_kd.search.teaching import (
    Examples,
    Judge,
    Recipe,
    check_labels,
    outputs_of,
    usual_loss,
    warn_of_untrained,
)

_USUAL_KEEP = 0.99
# What of a device decides which students fit.
_LIMITS = ("target", "flash_bytes", "ram_bytes", "latency", "kernels", "compressed")


def fit_to_device(
    teacher: Any,
    data: Any,
    *,
    validation_data: Any,
    device: str | Device,
    keep: float | None = None,
    metric: str | None = None,
    goal: float | None = None,
    student: Callable[[Any], Any] | None = None,
    trials: int = 12,
    directory: str | Path | None = None,
    max_minutes: float | None = None,
    epochs: int = 9,
    finalists: int = 2,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    student_loss_weight: float = 0.1,
    distillation_losses: Any = None,
    loss: Any = None,
    sparsity: float = 0.7,
    seed: int = 0,
    verbose: int = 1,
) -> FitResult:
    """Find the best student of a teacher that fits a device, and make its verified file.

    Whether a student fits is known before it is trained: the untrained student gets distinct
    weights and quantizers, is converted for the target, and its bytes and its arena in TensorFlow
    Lite Micro (latency in LiteRT for other targets) are those of the real file. Only students that
    fit are trained. Their trainings read the teacher's outputs from a store, so that a step costs
    what the student costs. All are trained for a few epochs, the best third for three times as
    many, and so on (successive halving). The finalists are trained quantization-aware, pruned
    before where the device counts compressed bytes, converted and verified in the target's runtime.
    The most accurate file that fits wins.

    The validation data choose the student: measure it again on other data. A teacher that is no
    better on them than a constant answer raises a warning.

    Args:
        teacher: a trained model of either Keras with one output.
        data: the training data: arrays (x, y), where x may be a dict of arrays by input name, or a
            list in the order of the inputs; or a dataset of batches (x, y), which is read into
            memory once (see `keras_kd.data.to_arrays`).
        validation_data: likewise; students are compared by it.
        device: a `keras_kd.devices.Device`, or the name of one in `keras_kd.devices.DEVICES`.
        keep: the goal as a share of the teacher's metric, 0.99 if neither `keep` nor `goal` is
            given. Where less is better, as for errors, the metric may be 1 / keep times larger.
        metric: a name in `keras_kd.metrics.MEASURES`; None: the first measure of the task.
        goal: what the metric should reach, instead of `keep`.
        student: None for narrower and shallower forms of the teacher, with its own weights
            (`keras_kd.search.Form`); or a function of `keras_tuner.HyperParameters` that returns
            an untrained Keras 3 model.
        trials: how many students that fit are trained.
        directory: where finished trainings are kept. The same call resumes there after an
            interruption. None keeps nothing.
        max_minutes: a time limit, after which the best student so far is the result. It counts
            from the beginning of the call, interrupted calls in the same directory included.
            Trainings are made shorter and fewer to keep it, and the time for a file is kept free;
            the teacher's outputs, one student trained for a step and a file that fits are made in
            any case. None: no limit.
        epochs: of a finalist's training in float32; half as many follow with quantizers.
        finalists: how many students are trained to the end; forms of the teacher twice, from its
            weights and from new ones.
        batch_size: of trainings.
        learning_rate: where the cosine of each training begins (Adam).
        student_loss_weight: share of the loss on labels, see `keras_kd.Distiller`.
        distillation_losses: see `keras_kd.Distiller`; None: its defaults.
        loss: on labels; None: cross-entropy, or the mean square error for a regression.
        sparsity: the share of zeros where the device counts compressed bytes.
        seed: of new weights and of the order of the examples.
        verbose: 0 prints nothing.

    Returns:
        The student, its file and every candidate; `print(result)` shows them.

    Raises:
        BlockingIOError: if another search is running in the directory.
        ImportError: if a package is missing: tflite-micro where RAM counts, keras-tuner for a
            family of students.
        NothingFits: if no student fits the device (a ValueError); its message names the nearest
            one, by how much it misses, and what would help.
        OSError: if nothing can be written in the directory.
        TypeError: if an argument is of another type.
        ValueError: if an argument is out of range, teacher and data do not fit together, no layer
            of the teacher can be made narrower, the directory holds another search, or
            `max_minutes` was over before a student was found.

    Example:
        ```python
        result = keras_kd.fit_to_device(
            teacher,
            (x_train, y_train),
            validation_data=(x_val, y_val),
            device=keras_kd.devices.Device(flash="64 KB", ram="32 KB"),
            directory="runs/keywords",
        )
        print(result)
        result.save("firmware")
        ```
    """
    began = time.monotonic()
    board = devices.get(device)
    recipe = _checked_recipe(
        epochs, batch_size, learning_rate, student_loss_weight, distillation_losses, sparsity, seed
    )
    check_integer("trials", trials, at_least=1, fix="pass 12")
    check_integer("finalists", finalists, at_least=1, fix="pass 2")
    if max_minutes is not None:
        check_number("max_minutes", max_minutes, above=0, fix="pass 30, or leave it out")
    check_goal("the metric", keep, goal)
    if keep is not None:
        check_number("keep", keep, above=0, at_most=1, fix="0.99 keeps 99 % of the metric")
    if goal is not None:
        check_number("goal", goal, fix="pass the value that the metric should reach")
    _check_student(student)
    check_model("teacher", teacher)
    check_measurable(board)
    inputs = getattr(teacher, "inputs", None) or ()
    train = Examples.of("data", data, inputs).for_inputs_of(teacher)
    examples = Examples.of("validation_data", validation_data, inputs).for_inputs_of(teacher)
    judge, outputs = Judge.of(teacher, examples, metric)
    if goal is not None and judge.measure.is_share:
        check_number("goal", goal, at_least=0, at_most=1, fix="0.97 means 97 %")
    outputs_of(teacher, train, "data", 1)
    if loss is None:
        check_labels(train.y, judge, outputs)
    teacher_value = judge.value(outputs)
    warn_of_untrained(teacher, judge, outputs)
    if goal is None:
        share = _USUAL_KEEP if keep is None else keep
        goal = teacher_value * (share if judge.measure.higher_is_better else 1 / share)
    labels_loss = usual_loss(judge.task, outputs, examples.y) if loss is None else loss
    recipe = Recipe(**{**vars(recipe), "loss": labels_loss})
    identity = identity_of(
        arrays={
            "teacher": teacher.get_weights(),
            "data": [train.x, train.y],
            "validation data": [examples.x, examples.y],
        },
        family=student,
        settings={
            "device": [getattr(board, name) for name in _LIMITS],
            "metric": judge.measure.name,
            "trials": trials,
            "finalists": finalists,
            **vars(recipe),
        },
    )
    with using(directory, "a search"):
        state = State(directory, identity, began)
        search = Search(
            teacher=teacher,
            family=student,
            train=train,
            judge=judge,
            output_shape=outputs.shape[1:],
            board=board,
            recipe=recipe,
            state=state,
            trials=trials,
            finalists=finalists,
            max_seconds=None if max_minutes is None else 60 * max_minutes,
            say=_print if verbose else _nothing,
        )
        search.say(
            f"Fit to {board}; teacher: {judge.measure.heading} {judge.text(teacher_value)}, goal "
            f"{judge.text(goal)}"
        )
        winner, model, plain = search.run()
        value = winner.file_value if winner.file_value is not None else math.nan
        return FitResult(
            model=model,
            student=plain,
            winner=winner,
            candidates=search.candidates(),
            device=board,
            teacher_value=teacher_value,
            goal=goal,
            reached=judge.signed(value) >= judge.signed(goal),
            metric=judge.measure.heading,
            minutes=state.seconds / 60,
            code=search.code(winner.name),
            _judge=judge,
        )


def _checked_recipe(
    epochs: int,
    batch_size: int,
    learning_rate: float,
    student_loss_weight: float,
    distillation_losses: Any,
    sparsity: float,
    seed: int,
) -> Recipe:
    return Recipe(
        epochs=check_integer("epochs", epochs, at_least=1, fix="pass 9"),
        batch_size=check_integer("batch_size", batch_size, at_least=1, fix="pass 64"),
        learning_rate=check_number("learning_rate", learning_rate, above=0, fix="pass 5e-3"),
        student_loss_weight=check_number(
            "student_loss_weight", student_loss_weight, at_least=0, at_most=1, fix="pass 0.1"
        ),
        distillation_losses=distillation_losses,
        loss=None,
        sparsity=check_number("sparsity", sparsity, above=0, at_most=0.99, fix="pass 0.7"),
        seed=check_integer("seed", seed, at_least=0, fix="pass 0"),
    )


def _check_student(student: Any) -> None:
    if student is None or (callable(student) and not is_model(student)):
        return
    raise problem(
        f"student={student!r:.100}",
        "None, or a function of keras_tuner.HyperParameters that returns a model",
        "pass student=lambda hp: keras.models.clone_model(model) for a single student",
        kind=TypeError,
    )


def _print(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def _nothing(text: str) -> None:
    """Print nothing."""
