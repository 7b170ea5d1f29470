"""Running a pipeline: compress, distill, measure and save, step by step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kd._checks import one_line, problem, three_parts
from keras_kd._fitting import listed
from keras_kd._state_files import using
from keras_kd.callbacks import ResumeTraining
from keras_kd.callbacks.run import can_resume
from keras_kd.compression.families import BY_NAME
from keras_kd.compression.steps.checkpoint import Checkpoint
from keras_kd.compression.steps.result import PipelineResult, Stage, measure
from keras_kd.compression.steps.step import Step, check_order
from keras_kd.compression.stripping import strip
from keras_kd.teachers.joined import without_teacher

_CALIBRATION_EXAMPLES = 512
# Rounding of a share over kernels of several sizes.
_TOLERATED_LOSS_OF_SPARSITY = 1e-3


def pipeline(
    steps: Sequence[Step],
    distiller: Any,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    representative_data: Any = None,
    directory: str | Path | None = None,
    verbose: int | str = "auto",
    **fit_arguments: Any,
) -> PipelineResult:
    """Compress a student in several steps, each followed by its own epochs of distillation.

    All steps are tried without training first, so that an impossible setting raises an error at
    once. After each step the student is measured; zeros or clusters of earlier steps that are lost
    cause a warning.

    Args:
        steps: what to do, in an order in which no step undoes an earlier one: factorize,
            remove_filters, prune, cluster, quantize_aware.
        distiller: a compiled `keras_kd.Distiller` whose student is trained. It is not trained
            itself, and its student is not changed: each step gets `distiller.with_student(...)`.
        x: inputs to train on, in any form that `fit` takes.
        y: labels, where `x` does not bring them.
        validation_data: what `evaluate` measures after each step: (x, y), (x, y, sample_weight) or
            a data set.
        representative_data: for "quantize_aware", inputs from which ranges are measured. None
            takes some of the training data, where `x` can be read more than once.
        directory: where finished steps are kept, and the epochs of the step that runs. Called again
            with the same student and directory, the pipeline resumes at the epoch, as
            `keras_kd.callbacks.ResumeTraining` does, after the last finished step whose arguments
            have not changed. What that callback cannot resume, as a generator, it begins with the
            step. Data and teacher are compared with those of the step that was running, not with
            those of finished steps. None keeps nothing.
        verbose: as in `fit`; 0 prints nothing.
        **fit_arguments: further arguments of `fit`, such as `batch_size` or `callbacks`.

    Returns:
        The last step's student and what was measured; `print(result)` shows a table.

    Raises:
        BlockingIOError: if another pipeline is running in the directory.
        TypeError: if the steps are no steps.
        ValueError: if the order is impossible (with the reason), a step cannot be done or ends in
            NaN, the distiller is not compiled, or the directory holds something else: another
            student, or the training of a step with other data or another teacher.

    Example:
        ```python
        result = keras_kd.compression.pipeline(
            [
                Step("factorize", epochs=3, energy=0.95),
                Step("prune", epochs=3, sparsity=0.7),
                Step("quantize_aware", epochs=2, learning_rate=1e-4),
            ],
            distiller,
            x_train,
            y_train,
            validation_data=(x_test, y_test),
            directory="runs/digits",
        )
        print(result)
        model = keras_kd.tflite.convert(result.student, "int8", x_train)
        ```
    """
    steps = [steps] if isinstance(steps, Step) else list(steps)
    check_order(steps)
    if "epochs" in fit_arguments:
        raise problem(
            f"epochs={fit_arguments['epochs']!r} for the whole pipeline",
            "a number of epochs for each step",
            'write Step("prune", epochs=3)',
            kind=TypeError,
        )
    _check_distiller(distiller)
    with using(directory, "a pipeline"):
        return _work(
            steps,
            _Run(distiller, (x, y), validation_data, verbose, fit_arguments),
            representative_data,
            directory,
        )


def _work(
    steps: Sequence[Step], run: _Run, representative_data: Any, directory: str | Path | None
) -> PipelineResult:
    """Do the steps that are not finished."""
    start = strip(run.distiller.student)
    checkpoint = Checkpoint(directory, start, steps)
    if representative_data is None:
        representative_data = _some_of(run.data[0], start)
    finished = checkpoint.finished
    plain = checkpoint.plain(finished)
    _rehearse(steps[finished:], plain)
    if not checkpoint.stages:
        began = time.perf_counter()
        metrics = run.metrics(run.distiller)
        checkpoint.save(
            None, None, measure("start", 0, start, metrics, time.perf_counter() - began)
        )
    if finished:
        run.say(f"Steps 1 to {finished} of {len(steps)}: taken from {directory}")
    trained = plain
    if finished == len(steps) and steps[-1].family.stays:
        trained = _compressed(steps[-1], checkpoint.plain(finished - 1), representative_data)
        checkpoint.restore(finished, trained)
    checkpoint.restore_random(plain)
    for number, step in enumerate(steps[finished:], start=finished + 1):
        run.say(f"Step {number} of {len(steps)}: {step!r}")
        began = time.perf_counter()
        trained = _compressed(step, plain, representative_data)
        metrics = run.teach(trained, step, checkpoint.training())
        plain = strip(trained)
        if not step.family.stays:
            trained = plain
        _check_finite(plain, step)
        stage = measure(step.kind, step.epochs, plain, metrics, time.perf_counter() - began)
        _warn_of_losses(checkpoint.stages, stage)
        checkpoint.save(plain, trained, stage)
    checkpoint.remove_training()
    result = PipelineResult(trained, tuple(checkpoint.stages))
    run.say(str(result))
    return result


def _compressed(step: Step, plain: keras.Model, representative_data: Any) -> Any:
    """The student of a step, not yet trained."""
    takes = step.takes("representative_data")
    return step(plain, **({"representative_data": representative_data} if takes else {}))


class _Run:
    """What is the same in every step: data, and how training and progress are shown."""

    def __init__(
        self,
        distiller: Any,
        data: tuple[Any, Any],
        validation_data: Any,
        verbose: int | str,
        fit_arguments: Mapping[str, Any],
    ) -> None:
        self.distiller = distiller
        self.data = data
        self._validation_data = validation_data
        self._verbose = verbose
        self._fit_arguments = dict(fit_arguments)

    def say(self, text: str) -> None:
        if self._verbose != 0:
            print(text, flush=True)

    def teach(self, student: Any, step: Step, directory: Path | None) -> dict[str, float]:
        """Train a student for one step; the result of `evaluate`.

        Args:
            student: compressed.
            step: how long, and how fast.
            directory: where the training is kept after each epoch, if its data allow that.
        """
        taught = self.distiller.with_student(student, learning_rate=step.learning_rate)
        x, y = self.data
        arguments = {
            "x": x,
            "y": y,
            "epochs": step.epochs,
            "validation_data": self._validation_data,
            "verbose": self._verbose,
            **self._fit_arguments,
        }
        if directory is not None and step.epochs and can_resume(taught, arguments):
            given = listed(arguments.get("callbacks"))
            arguments["callbacks"] = [*given, ResumeTraining(directory)]
        if step.epochs:
            taught.fit(**arguments)
        return self.metrics(taught)

    def metrics(self, distiller: Any) -> dict[str, float]:
        if self._validation_data is None:
            return {}
        is_tuple = isinstance(self._validation_data, tuple)
        x, y, *weight = self._validation_data if is_tuple else (self._validation_data, None)
        measured = distiller.evaluate(
            x,
            y,
            sample_weight=weight[0] if weight else None,
            batch_size=self._fit_arguments.get("batch_size"),
            verbose=0,
            return_dict=True,
        )
        return {name: float(value) for name, value in measured.items()}


def _check_distiller(distiller: Any) -> None:
    if not hasattr(distiller, "with_student"):
        raise problem(
            f"distiller of type {type(distiller).__name__}",
            "a keras_kd.Distiller, which has teacher and student",
            "write distiller = keras_kd.Distiller(teacher, student) and compile it",
            kind=TypeError,
        )
    if getattr(distiller, "optimizer", None) is None:
        raise problem(
            f"the distiller {distiller.name!r}, which is not compiled",
            "one whose optimizer and losses are known",
            "call distiller.compile(optimizer, loss, metrics=['accuracy']) first",
        )


def _rehearse(steps: Sequence[Step], plain: keras.Model) -> None:
    """Do all steps without training, so that impossible settings raise errors at once."""
    for step in steps:
        try:
            plain = strip(step(plain))
        except (TypeError, ValueError) as error:
            raise type(error)(f"In the step {step!r}: {one_line(error)}") from error


def _some_of(x: Any, student: keras.Model) -> Any:
    """Inputs of some training examples, or None if reading them would use them up."""
    if isinstance(x, Mapping):
        return _own(x, student)
    if hasattr(x, "shape"):
        return x
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return _inputs((x[number] for number in range(len(x))), student)
    # An iterator is its own iterator, and is used up once read.
    if isinstance(x, Iterable) and iter(x) is not x:
        return _inputs(x, student)
    return None


def _inputs(batches: Iterable[Any], student: keras.Model) -> list[Any]:
    """The student's inputs in the first batches."""
    found, count = [], 0
    for batch in batches:
        inputs = without_teacher(batch[0] if isinstance(batch, tuple | list) else batch)
        found.append(_own(inputs, student) if isinstance(inputs, Mapping) else inputs)
        count += len(keras.tree.flatten(inputs)[0])
        if count >= _CALIBRATION_EXAMPLES:
            break
    return found


def _own(inputs: Mapping[str, Any], student: keras.Model) -> dict[str, Any]:
    """Named inputs without those that only the teacher sees."""
    names = {tensor.name for tensor in student.inputs}
    return {name: value for name, value in inputs.items() if name in names}


def _check_finite(plain: keras.Model, step: Step) -> None:
    for weight in plain.weights:
        value = np.asarray(weight)
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise problem(
                f"a weight {weight.path!r} that is NaN or infinite after {step!r}",
                "finite weights after the training",
                "check the data for NaN, or lower the learning rate of the step",
            )


def _warn_of_losses(before: Sequence[Stage], after: Stage) -> None:
    """Warn if zeros or clusters of an earlier step are lost."""
    for stage in before:
        family = BY_NAME.get(stage.name)
        if family is not None and family.result is not None:
            loss = _LOSSES[family.result](stage, after)
            if loss is not None:
                _warn(after, *loss)


def _lost_zeros(before: Stage, after: Stage) -> tuple[str, str] | None:
    expected, received = before.sparsity or 0.0, after.sparsity or 0.0
    if received >= expected - _TOLERATED_LOSS_OF_SPARSITY:
        return None
    return f"a sparsity of {received:.1%}", f"{expected:.1%}"


def _lost_clusters(before: Stage, after: Stage) -> tuple[str, str] | None:
    expected, received = before.distinct_values, after.distinct_values
    if expected is None or (received is not None and received <= expected):
        return None
    return "no clusters" if received is None else f"{received} values", f"{expected} values"


# By the column `result` of the families.
_LOSSES = {"sparsity": _lost_zeros, "distinct_values": _lost_clusters}


def _warn(stage: Stage, received: str, expected: str) -> None:
    warnings.warn(
        three_parts(
            f"{received} in the kernels of the student after the step {stage.name!r}",
            f"{expected}, as an earlier step had left it",
            "do this step earlier, or leave its option to keep zeros and clusters on",
        ),
        stacklevel=4,
    )
