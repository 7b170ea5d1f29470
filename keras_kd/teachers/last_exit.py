"""A student with early exits: the last one teaches the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _graphs
from keras_kd._checks import problem, shapes_fit
from keras_kd._logits import recognise_logits, remember_logits
from keras_kd.taps import Tapped
from keras_kd.teachers.base import Teacher

OutputKey = str | int


@keras.saving.register_keras_serializable(package="keras_kd")
class LastExit(Teacher):
    """The last exit of the student teaches all exits: deep supervision without a teacher model.

    The student has one output per exit, all of one shape, the deepest last. Early exits then can
    answer easy examples at a part of the cost. No gradient flows into the last exit as a teacher;
    it learns from labels (`student_loss_weight` above 0). Compared with itself it has a loss of 0,
    or one without a gradient.

    A loss that reads hidden layers (the paper's "hint" from the deepest features to the others)
    names layers of the student on both sides.

    Args:
        output: the name or index of the exit that teaches. `None` for the last of a list; needed
            where the outputs are a dict, which has no order.
        name: for messages.

    Raises:
        TypeError: if `output` is neither a name nor an index.

    Example:
        ```python
        student = keras.Model(image, [early_logits, late_logits])
        distiller = keras_kd.Distiller(keras_kd.teachers.LastExit(), student)
        ```

    Reference:
        Zhang, Song, Gao, Chen, Bao, Ma: Be Your Own Teacher: Improve the Performance of
        Convolutional Neural Networks via Self Distillation, ICCV 2019, arXiv 1905.08094.
    """

    def __init__(self, output: OutputKey | None = None, *, name: str = "last_exit") -> None:
        if not isinstance(output, str | int | None) or isinstance(output, bool):
            raise problem(
                f"output={output!r}",
                "the name or index of an output of the student, or None",
                "pass for example LastExit('classifier')",
                kind=TypeError,
            )
        self.output = output
        self.name = name
        self._layer_names: list[str] = []

    @property
    def student_layer_names(self) -> list[str]:
        """The layers that a loss reads as the teacher's."""
        return self._layer_names

    def tap(self, layer_names: Sequence[str]) -> None:
        """Read these layers of the student."""
        self._layer_names = list(layer_names)

    def meet(self, student: Any) -> None:
        """Check the student's outputs, where they are known.

        Raises:
            ValueError: if it has one output only, exits of several shapes, or not the one named.
        """
        outputs = _graphs.output_specs(student)
        if outputs is not None:
            self._last(outputs)

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The shapes of the student."""
        return student

    def __call__(self, inputs: Any, student: Tapped) -> Tapped:
        """The student's structure, with the last exit in place of each, and its own features."""
        last = self._last(student.outputs)
        seen = recognise_logits(last)
        taught = ops.stop_gradient(last)
        remember_logits(taught, dataclasses.replace(seen, logits=ops.stop_gradient(seen.logits)))
        return Tapped(
            keras.tree.map_structure(lambda _: taught, student.outputs),
            {name: ops.stop_gradient(student.features[name]) for name in self._layer_names},
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"output": self.output, "name": self.name}

    def _last(self, outputs: Any) -> Any:
        """The exit that teaches.

        Raises:
            ValueError: if there is none, or it does not fit the others.
        """
        exits: dict[Any, Any]
        key: Any
        if isinstance(outputs, dict):
            exits, key = dict(outputs), self.output
        elif isinstance(outputs, list | tuple) and len(outputs) > 1:
            exits = dict(enumerate(outputs))
            key = len(exits) - 1 if self.output is None else self.output
        else:
            exits, key = {}, None
        if len(exits) < 2 or key not in exits:
            has = f"the outputs {list(exits)}" if exits else "one output"
            raise problem(
                f"a student with {has} for LastExit(output={self.output!r})",
                "a list of exits, the deepest last, or the name of the one that teaches",
                "give the student one output per exit, and name one of a dict of outputs",
            )
        shapes = {name: tuple(exit_.shape) for name, exit_ in exits.items()}
        if not all(shapes_fit(shape, shapes[key]) for shape in shapes.values()):
            raise problem(
                f"exits of the shapes {shapes}",
                f"exits of one shape, that of {key!r}, which teaches the others",
                "end every exit in a Dense layer with one unit per class",
            )
        return exits[key]
