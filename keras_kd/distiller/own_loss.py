"""The loss on labels: that of `compile`, or the student's own.

The latter is its `compute_loss`, or the loss that it was compiled with.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keras import ops

from keras_kd import _graphs, _keras, _replicas
from keras_kd._checks import one_line, problem, three_parts
from keras_kd.distiller.labels import Labels
from keras_kd.distiller.objective import Objective
from keras_kd.distiller.replicas import label_loss

_CROSSENTROPIES_OF_PROBABILITIES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
)


def overrides(model: Any, method: str) -> bool:
    """Whether a method of a model is the user's, not Keras' own."""
    owner = next((cls for cls in type(model).__mro__ if method in vars(cls)), None)
    return owner is not None and owner.__module__.split(".")[0] not in ("keras", "tf_keras")


def has_own_loss(student: Any) -> bool:
    """Whether a student computes a loss without a Distiller's `compile`."""
    return overrides(student, "compute_loss") or _is_compiled_with_loss(student)


def check_label_loss(student: Any, loss: Any, objective: Objective, labels: Labels) -> None:
    """Check that there is a loss on labels, if it counts.

    Args:
        student: the student.
        loss: that of `compile`, or `None`.
        objective: the losses and weights, by which labels count or do not.
        labels: whether some can be missing.

    Raises:
        ValueError: if there is none, or the student's own cannot leave out missing labels.
    """
    if loss is not None or not objective.needs_labels:
        return
    if not has_own_loss(student):
        raise problem(
            f"loss=None with student_loss_weight={objective.student_loss_weight}",
            "a loss on the labels",
            "pass loss='sparse_categorical_crossentropy' or another one, or build the "
            "Distiller with student_loss_weight=0 to train on the teacher (and on the student's "
            "add_loss) alone",
        )
    if labels.missing is not None and overrides(student, "compute_loss"):
        raise problem(
            f"missing_label={labels.missing} for the student "
            f"{student.name!r}, which computes its loss itself",
            "a loss that leaves out examples without a label",
            "pass loss=... to compile, or build the Distiller without missing_label and "
            "let compute_loss leave them out",
        )


def warn_of_label_loss(student: Any, loss: Any) -> None:
    """Warn of a loss of `compile` that takes the place of the student's, or misreads its outputs.

    To be called in a function that `compile` calls.
    """
    if loss is not None and overrides(student, "compute_loss"):
        warnings.warn(
            three_parts(
                f"loss={_keras.short(loss)} for the student {student.name!r}, whose own "
                "compute_loss is not called then",
                "one loss on labels",
                "pass loss=None to compile of the Distiller for the student's compute_loss",
            ),
            stacklevel=4,
        )
    if (
        isinstance(loss, str)
        and loss in _CROSSENTROPIES_OF_PROBABILITIES
        and _graphs.ends_in_logits(student)
    ):
        warnings.warn(
            three_parts(
                f"loss={loss!r} for the student {student.name!r}, which ends in logits",
                "probabilities: this is how Keras reads the name of a cross-entropy",
                "pass the loss as an object with from_logits=True, for example "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or end the "
                "student in a softmax",
            ),
            stacklevel=4,
        )


def warn_of_steps(student: Any) -> None:
    """Warn that a student's own steps are not called: a Distiller's step runs in their place."""
    steps = [step for step in ("train_step", "test_step") if overrides(student, step)]
    if steps:
        warnings.warn(
            three_parts(
                f"the student {student.name!r} of class {type(student).__name__}, whose "
                f"{' and '.join(steps)} a Distiller does not call",
                "a student that computes its loss in compute_loss, which a Distiller calls",
                "move the loss from train_step to compute_loss(self, x, y, y_pred, sample_weight), "
                "and leave the steps to Keras",
            ),
            stacklevel=4,
        )


def own_loss(student: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
    """The value of the student's `compute_loss` for a batch, a scalar.

    The student's regularization losses, and what its layers add with `add_loss`, are left out: they
    count in every Distiller, once.

    Raises:
        ValueError: if the student's loss needs a compiled student, or is no scalar.
    """
    if _replicas.number() > 1:
        return label_loss(_keras.losses_of_compile(student), y, y_pred, sample_weight)
    try:
        with _without_penalties(student):
            loss = call_compute_loss(student.compute_loss, x, y, y_pred, sample_weight, training)
    except (TypeError, ValueError) as error:
        if _is_compiled_with_loss(student):
            raise
        raise problem(
            f"the student {student.name!r}, which is not compiled, for its own compute_loss: "
            f"{one_line(error)[:200]}",
            "a student that can compute its loss",
            "compile it first, as for training it alone: student.compile(loss=...); or pass "
            "loss=... to compile of the Distiller",
        ) from error
    shape = getattr(loss, "shape", None)
    if shape is None or len(shape) > 0:
        raise problem(
            f"{'nothing' if loss is None else f'a value of shape {shape}'} from compute_loss "
            f"of the student {student.name!r}",
            "a scalar",
            "return for example keras.ops.mean(values)",
        )
    return loss


def call_compute_loss(
    function: Callable[..., Any],
    x: Any,
    y: Any,
    y_pred: Any,
    sample_weight: Any,
    training: bool,
) -> Any:
    """Call a `compute_loss` that may be a user's: many have no `training`, as in older Keras."""
    named = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
    parameters = inspect.signature(function).parameters
    kinds = {one.kind for one in parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    extra = {"training": training} if takes_any or "training" in parameters else {}
    if set(named) <= set(parameters) or (
        takes_any and inspect.Parameter.VAR_POSITIONAL not in kinds
    ):
        return function(**named, **extra)
    return function(*named.values(), **extra)


def own_metrics(student: Any) -> list[Any]:
    """The metrics that a student keeps itself, beside those of its `compile`."""
    compiled = [id(metric) for metric in _keras.metrics_of_compile(student)]
    return [metric for metric in student.metrics if id(metric) not in compiled]


def _is_compiled_with_loss(student: Any) -> bool:
    compiled = getattr(student, "compiled", False) or getattr(student, "_is_compiled", False)
    return bool(compiled and getattr(student, "loss", None))


@contextmanager
def _without_penalties(student: Any) -> Iterator[None]:
    """Within this context the student adds no losses.

    `losses` is a property of the class in Keras 3 and tf_keras, so that the class changes for a
    moment.
    """
    own = type(student)
    # Without any loss Keras raises an error.
    losses = [ops.zeros(())] if _is_compiled_with_loss(student) else []
    kind: Any = type(own)
    hiding = kind(own.__name__, (own,), {"losses": property(lambda self: losses)})
    try:
        object.__setattr__(student, "__class__", hiding)
        yield
    finally:
        object.__setattr__(student, "__class__", own)
