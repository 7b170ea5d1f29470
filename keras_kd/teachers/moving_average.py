"""A moving average of the student as its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _keras
from keras_kd._checks import check_number, one_line, problem
from keras_kd.taps import Tap, Tapped
from keras_kd.teachers.base import Teacher


@keras.saving.register_keras_serializable(package="keras_kd")
class MovingAverage(Teacher):
    """The exponential moving average of the student's weights: a mean teacher.

    Needs no trained teacher. Useful with few labels, with noise or augmentation in the student's
    inputs, and as a steadier model at the end: `teacher.learning_models[0]`.

        average = d * average + (1 - d) * student,  d = min(decay, (1 + step) / (10 + step))

    after every step. The smaller d of the first steps lets the average forget the weights that
    the student began with. All floating-point weights are averaged, the statistics of
    BatchNormalization too, which belong to the mixture of students that the average is. Integers
    and the states of random generators are left alone.

    Args:
        decay: d, at least 0 and below 1; 0.99 to 0.999 are usual.
        name: for messages.

    Raises:
        TypeError: if `decay` is no number.
        ValueError: if it is out of range.

    Example:
        ```python
        distiller = keras_kd.Distiller(keras_kd.teachers.MovingAverage(0.99), student)
        ```

    Reference:
        Tarvainen, Valpola: Mean teachers are better role models, NIPS 2017, arXiv 1703.01780. The
        authors' teacher keeps its noise (dropout); here every teacher runs as in inference.
    """

    def __init__(self, decay: float = 0.999, *, name: str = "moving_average") -> None:
        fix = "use a number such as 0.999"
        self.decay = check_number("decay", decay, at_least=0, at_most=1, fix=fix)
        if self.decay == 1.0:
            raise problem(f"decay={decay!r}", "a number below 1", fix)
        self.name = name
        self._layer_names: list[str] = []
        self._tap: Tap | None = None
        self._pairs: list[tuple[Any, Any]] = []

    @property
    def learning_models(self) -> list[Any]:
        """The average, once there is a student."""
        return [] if self._tap is None else [self._tap.model]

    def tap(self, layer_names: Sequence[str]) -> None:
        """Read these layers, which have the student's names."""
        self._layer_names = list(layer_names)
        if self._tap is not None:
            self._tap = Tap(self._tap.model, self._layer_names)

    def meet(self, student: Any) -> None:
        """Begin with a copy of the student.

        Raises:
            ValueError: if the student cannot be copied, or has no layer that a loss reads.
        """
        average = _copy(student)
        self._tap = Tap(average, self._layer_names)
        # Now, because tf_keras orders the weights of a frozen model in another way.
        self._pairs = list(zip(average.weights, student.weights, strict=True))

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The average's outputs and features."""
        return None if self._tap is None else self._tap.shapes()

    def __call__(self, inputs: Any, student: Tapped | None) -> Tapped:
        """One forward pass of the average.

        Raises:
            ValueError: if there is no student yet.
        """
        if self._tap is None:
            raise problem(
                f"inputs for {self.name!r} before a student",
                "a student to average",
                "give it to keras_kd.Distiller with the student, or call meet(student) first",
            )
        return self._tap(inputs, training=False)

    def after_step(self, student: Any, step: Any = None) -> None:
        """Move the average towards the student."""
        decay = ops.convert_to_tensor(self.decay, dtype="float32")
        if step is not None:
            step = ops.cast(step, "float32")
            decay = ops.minimum(decay, (1.0 + step) / (10.0 + step))
        for average, weight in self._pairs:
            if "float" in keras.backend.standardize_dtype(weight.dtype):
                own, new = ops.convert_to_tensor(average), ops.convert_to_tensor(weight)
                average.assign(own + ops.cast(1.0 - decay, own.dtype) * (new - own))
            else:
                # Masks and counters have no average.
                average.assign(weight)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"decay": self.decay, "name": self.name}


def _copy(student: Any) -> Any:
    """A model of the same architecture and weights that shares nothing with the student.

    Raises:
        ValueError: if there is no way to make one.
    """
    if not student.built:
        raise _not_copied(student, "it has no weights yet", "call it on a batch of inputs first")
    try:
        if _keras.is_keras_model(student):
            copy = keras.models.clone_model(student)
            if not copy.built:
                copy.build_from_config(student.get_build_config())
        else:
            copy = _keras.tf_keras().models.clone_model(student)
        _keras.copy_weights(copy, student)
    except Exception as error:
        # Layers and models of users, and those of TF-MOT, raise what they like.
        raise _not_copied(
            student,
            one_line(error),
            "give a subclassed model get_config and from_config that build all of its layers",
        ) from error
    return copy


def _not_copied(student: Any, reason: str, fix: str) -> ValueError:
    return problem(
        f"the student {student.name!r}, which cannot be copied for its moving average: "
        f"{reason[:300]}",
        "a built model that its configuration describes",
        fix,
    )
