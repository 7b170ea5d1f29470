"""What every distillation loss shares: the outputs it compares, and how values become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_kd import _logits, schedules
from keras_kd._checks import problem, shapes_fit
from keras_kd.losses.reduction import weighted_mean

OutputKey = str | int


@dataclass(frozen=True)
class Pair:
    """A tensor of the teacher, one of the student, and which of their examples count.

    Attributes:
        teacher: tensor of shape `(batch, ...)`, or a list of tensors that belong together.
        student: the student's tensor, or tensors.
        sample_weight: `None` or a tensor of shape `(batch, ...)`: how much an example counts.
        mask: `None` or a tensor of shape `(batch, ...)`: `False` or 0 where nothing counts.
    """

    teacher: Any
    student: Any
    sample_weight: Any = None
    mask: Any = None


class DistillationLoss(keras.distillation.DistillationLoss):
    """Base class: a subclass states a formula, one value per example, in `per_example`.

    This class applies the formula to every output of the models (or to those named by `outputs`),
    weighs the values by sample weights and masks, and reduces them in one place, so that weights
    and masks count in every loss. It works in `keras_kd.Distiller` and in Keras' own
    `keras.distillation.Distiller`.

    Args:
        outputs: which outputs to compare where the models have several: one key or a list of
            keys (of a dict) or indexes (of a list or tuple). `None` compares all of them. Of a
            teacher with one output the keys are those of the student.

    Raises:
        TypeError: if `outputs` holds anything but strings and integers.
    """

    # Whether the formula reads labels. Where some are missing (`missing_label` of the Distiller) it
    # then counts the labeled examples only.
    reads_labels = False
    # Whether the formula compares examples with one another, so that it needs all of a batch. With
    # `tf.distribute` it then gets the examples of all replicas.
    reads_whole_batch = False
    # To whose outputs the formula applies a softmax, "teacher" and "student": they must be logits.
    softened: tuple[str, ...] = ()
    # The activation that the formula applies to logits; "auto" for that of the models.
    activation: str | None = None
    # What brings features to the shape that the formula needs; see `FeatureLoss`.
    adapter: Any = None

    def __init__(self, *, outputs: OutputKey | Sequence[OutputKey] | None = None) -> None:
        given: Any = outputs if isinstance(outputs, list | tuple | None) else [outputs]
        keys = None if given is None else list(given)
        if keys is not None and not all(isinstance(key, str | int) for key in keys):
            raise problem(
                f"outputs={outputs!r}",
                "names or indexes of model outputs",
                "pass for example outputs=['label'] for dict outputs or outputs=[0] for lists",
                kind=TypeError,
            )
        self.outputs: list[OutputKey] | None = keys

    @property
    def original(self) -> keras.distillation.DistillationLoss:
        """The loss that the user passed, where this one was made from it; else itself."""
        return self

    @property
    def weights(self) -> list[keras.Variable]:
        """What the loss itself learns; made when the shapes are known, see `build`."""
        return []

    @property
    def schedules(self) -> dict[str, schedules.Schedule]:
        """The arguments that may change with the step, by name."""
        return {}

    @property
    def reads_outputs(self) -> bool:
        """Whether it compares the models' outputs, and not hidden layers alone."""
        return True

    def layers(self, side: str) -> list[str]:
        """The layers of one model, "teacher" or "student", that it reads, as taps name them."""
        return []

    def read(self, side: str, outputs: Any, features: Mapping[str, Any]) -> Any:
        """What it compares of one model, as `compute_loss` takes it.

        Args:
            side: "teacher" or "student".
            outputs: the model's outputs.
            features: those of the layers that `layers` names.
        """
        return outputs

    def build(self, teacher_shape: Any, student_shape: Any) -> None:
        """Make the loss's own weights, where it has any; called before the first value.

        Args:
            teacher_shape: shape of the teacher's tensor, batch first, or a list of shapes.
            student_shape: shape of the student's tensor, after any adapter.
        """
        # AutoGraph warns of a function that is nothing but its docstring.
        return

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """The formula on one pair of tensors.

        Args:
            teacher_output: tensor of shape `(batch, ...)`.
            student_output: tensor of the same shape, unless the loss states otherwise.
            **context: what a formula may need besides: `y`, the labels of this output (set
                `reads_labels = True` in the class), and `step`, the number of updates so far,
                where the loss has `schedules`.

        Returns:
            A tensor of shape `(batch, ...)` with one value per example (or per position of it).
        """
        raise NotImplementedError(f"{type(self).__name__} states no formula in per_example().")

    def prepare(self, teacher_output: Any, student_output: Any) -> tuple[Any, Any]:
        """Both tensors as the formula needs them."""
        return teacher_output, student_output

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The loss of one pair of tensors as a scalar: the weighted mean of `per_example`."""
        values = self.per_example(pair.teacher, pair.student, **context)
        return weighted_mean(values, pair.sample_weight, pair.mask)

    def pairs(self, teacher_outputs: Any, student_outputs: Any) -> list[tuple[Any, Any, Any]]:
        """What is compared with what: a list of `(key, teacher_output, student_output)`."""
        return matching_outputs(teacher_outputs, student_outputs, self.outputs)

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        *,
        y: Any = None,
        sample_weight: Any = None,
        mask: Any = None,
        step: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The loss of a batch as a scalar, summed over the compared outputs.

        Args:
            teacher_outputs: a tensor, or a list, tuple or dict of tensors.
            student_outputs: the same structure of the student's tensors.
            y: labels, for the losses that need them; one tensor or the structure of the outputs.
            sample_weight: weights of shape `(batch,)` or broadcastable to the loss's values; one
                tensor or the structure of the outputs. As everywhere in Keras, weighted values
                are summed and divided by their number, not by the sum of the weights.
            mask: what counts, in the same forms; masked values are left out of sum and number.
            step: how many updates the student has had, for arguments that are schedules.

        Returns:
            A scalar tensor of at least float32.
        """
        # A formula without schedules need not take a step.
        context = {"step": step} if self.schedules else {}
        total = 0.0
        for key, *both in self.pairs(teacher_outputs, student_outputs):
            teacher_output, student_output = keras.tree.map_structure(_as_tensor, both)
            self._check_known(teacher_output)
            self.build(shape_of(teacher_output), shape_of(student_output))
            pair = Pair(
                *self.prepare(teacher_output, student_output),
                _part(sample_weight, key),
                _part(mask, key),
            )
            total += self.of_pair(pair, y=_part(y, key), **context)
        return total

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check structure and shapes of the outputs that this loss compares.

        Raises:
            ValueError: if an output is missing, the shapes do not fit, or of the teacher's logits
                only the largest are known and the formula needs all.
        """
        for key, teacher_output, student_output in self.pairs(teacher_outputs, student_outputs):
            self._check_known(teacher_output)
            self.check_shapes(key, shape_of(teacher_output), shape_of(student_output))

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes, batch first; `None` represents any size.

        Raises:
            ValueError: if the formula cannot compare them.
        """
        if shapes_fit(teacher_shape, student_shape):
            return
        place = "outputs" if key is None else f"outputs {key!r}"
        raise problem(
            f"{place} of shape {teacher_shape} from the teacher and {student_shape} from the "
            f"student for {type(self).__name__}",
            "equal shapes, the last axis being the classes",
            _how_to_fit(teacher_shape, student_shape)
            or "give both models the same number of classes, or name the outputs that match, "
            f"as in {type(self).__name__}(outputs=[...])",
        )

    def check_top(self, top: _logits.Top) -> None:
        """Check that the largest of a teacher's logits, and the mass of the rest, are enough.

        Raises:
            ValueError: if the formula needs all logits, as it does unless it states otherwise.
        """
        refuse_top(top, type(self).__name__)

    def _check_known(self, teacher_output: Any) -> None:
        for top in filter(None, map(_logits.top_of, keras.tree.flatten(teacher_output))):
            self.check_top(top)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"outputs": self.outputs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DistillationLoss:
        """Rebuild the loss from `get_config`."""
        return cls(**{name: schedules.deserialize(value) for name, value in config.items()})


def matching_outputs(
    teacher_outputs: Any, student_outputs: Any, keys: Sequence[OutputKey] | None
) -> list[tuple[OutputKey | None, Any, Any]]:
    """Pair the outputs to compare: a list of `(key, teacher_output, student_output)`.

    The key of a single output is `None`; a list of one output is a single one. A single key names
    which output of one model belongs to the single one of the other, and a teacher's single output
    is compared with the named outputs of the student.

    Raises:
        ValueError: if the structures differ and no keys name what belongs together, or a key is
            missing.
    """
    teacher, student = outputs_by_key(teacher_outputs), outputs_by_key(student_outputs)
    compared: list[Any]
    if keys is None:
        if set(teacher) != set(student):
            raise problem(
                f"outputs {_names(teacher)} from the teacher and {_names(student)} from the "
                "student",
                "the same outputs from both",
                "name those to compare with `outputs=[...]` in the distillation loss",
            )
        compared = list(student)
    else:
        compared = list(keys)
    if list(teacher) == [None] and keys is not None and set(keys) <= set(student):
        # A single output has no name.
        teacher = dict.fromkeys(compared, teacher[None])
    elif list(student) == [None] and keys is not None and len(keys) == 1:
        [key] = keys
        found = teacher.get(key, teacher.get(None) if key == 0 else None)
        if found is not None:
            # The labels of a student with one output have no key.
            return [(None, found, student[None])]
    missing = [key for key in compared if key not in teacher or key not in student]
    if missing:
        raise problem(
            f"outputs={compared!r} where the teacher has {_names(teacher)} and the student "
            f"{_names(student)}",
            "names or indexes that both models have",
            f"leave out or correct {missing}; a single output fits any one name, as in "
            "outputs=['name']",
        )
    return [(key, teacher[key], student[key]) for key in compared]


def _as_tensor(part: Any) -> Any:
    """An array as a tensor; a tensor as it is, with what is noted of it."""
    return part if part is None or ops.is_tensor(part) else ops.convert_to_tensor(part)


def _how_to_fit(teacher_shape: Any, student_shape: Any) -> str | None:
    """What to do about outputs that differ in the number of classes alone."""
    shapes = [tuple(teacher_shape), tuple(student_shape)]
    if not all(shapes) or not shapes_fit(shapes[0][:-1], shapes[1][:-1]):
        return None
    count = min(shape[-1] or 0 for shape in shapes)
    if count < 2:
        return (
            "end both in units of the same meaning: one unit and a sigmoid, or two units and a "
            "softmax, which fit each other in losses such as keras_kd.losses.SoftTargets"
        )
    return (
        "give both models the same number of classes, or say which class of the student each "
        "column of the teacher is: "
        "keras_kd.teachers.ModelTeacher(teacher, classes={column: class}), for the first "
        f"{count} of both classes={{n: n for n in range({count})}}"
    )


def outputs_by_key(outputs: Any) -> dict[OutputKey | None, Any]:
    """A model's outputs by name or index; a single one has the key `None`."""
    if isinstance(outputs, dict):
        return dict(outputs)
    if isinstance(outputs, list | tuple) and len(outputs) != 1:
        return dict(enumerate(outputs))
    # Files of Keras 2 give a list of one.
    return {None: outputs[0] if isinstance(outputs, list | tuple) else outputs}


def _names(outputs: dict[OutputKey | None, Any]) -> str:
    return "[a single one]" if list(outputs) == [None] else str(list(outputs))


def _part(structure: Any, key: OutputKey | None) -> Any:
    """The part of `structure` that belongs to output `key`; one tensor belongs to all of them."""
    if not isinstance(structure, dict | list | tuple) or not all(
        part is None or hasattr(part, "shape") for part in keras.tree.flatten(structure)
    ):
        # Numbers in a list are one tensor.
        return structure
    parts = outputs_by_key(structure)
    if key is None:
        return parts.get(None, structure)
    return parts.get(key, parts.get(None) if key == 0 else None)


def shape_of(output: Any) -> Any:
    """The shape of a tensor, or the shapes of a list of tensors that belong together.

    Where only the largest of an output's logits are known, the shape of all of them.
    """
    if isinstance(output, list | tuple):
        return [shape_of(tensor) for tensor in output]
    top = _logits.top_of(output)
    return tuple(output.shape) if top is None else (*output.shape[:-1], top.number_of_classes)


def refuse_top(top: _logits.Top, name: str) -> None:
    """Refuse a teacher's output if only its largest logits are known.

    Args:
        top: what is known of it.
        name: that of the loss, for the message.

    Raises:
        ValueError: always.
    """
    raise problem(
        f"the largest logits of {top.number_of_classes} classes, stored with top_k, for {name}",
        "all logits, which every loss except SoftTargets and SoftCrossEntropy needs",
        "store the teacher's outputs without top_k, or distil with keras_kd.losses.SoftTargets",
    )
