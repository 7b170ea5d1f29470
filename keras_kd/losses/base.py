"""What every distillation loss shares: the outputs it compares, and how values become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _keras
from keras_kd._checks import problem, shapes_fit

OutputKey = str | int


class DistillationLoss(keras.distillation.DistillationLoss):
    """Base class: a subclass states a formula, one value per example, in `per_example`.

    This class applies the formula to every output of the models (or to those named by `outputs`),
    weighs the values by sample weights and masks, and reduces them in one place, so that weights
    and masks count in every loss. It works in `keras_kd.Distiller` and in Keras' own
    `keras.distillation.Distiller`.

    Args:
        outputs: which outputs to compare where the models have several: one key or a list of
            keys (of a dict) or indexes (of a list or tuple). `None` compares all of them.

    Raises:
        TypeError: if `outputs` holds anything but strings and integers.
    """

    def __init__(self, *, outputs: OutputKey | Sequence[OutputKey] | None = None) -> None:
        keys = outputs if isinstance(outputs, list | tuple | None) else [outputs]
        if keys is not None and not all(isinstance(key, str | int) for key in keys):
            raise TypeError(
                problem(
                    f"outputs={outputs!r}",
                    "names or indexes of model outputs",
                    "pass for example outputs=['label'] for dict outputs or outputs=[0] for lists",
                )
            )
        self.outputs = None if keys is None else list(keys)

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """The formula on one pair of tensors.

        Args:
            teacher_output: tensor of shape `(batch, ...)`.
            student_output: tensor of the same shape, unless the loss says otherwise.
            **context: what a formula may need besides: `y`, the labels of this output.

        Returns:
            A tensor of shape `(batch, ...)` with one value per example (or per position of it),
            or a scalar where the loss is a property of the whole batch.
        """
        raise NotImplementedError(f"{type(self).__name__} states no formula in per_example().")

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        *,
        y: Any = None,
        sample_weight: Any = None,
        mask: Any = None,
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

        Returns:
            A scalar tensor of at least float32.
        """
        pairs = matching_outputs(teacher_outputs, student_outputs, self.outputs)
        total = 0.0
        for key, teacher_output, student_output in pairs:
            values = self.per_example(teacher_output, student_output, y=_part(y, key))
            total += weighted_mean(
                values, sample_weight=_part(sample_weight, key), mask=_part(mask, key)
            )
        return total

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check structure and shapes of the outputs that this loss compares.

        Raises:
            ValueError: if an output is missing or the shapes do not fit.
        """
        for key, teacher_output, student_output in matching_outputs(
            teacher_outputs, student_outputs, self.outputs
        ):
            self.check_shapes(key, tuple(teacher_output.shape), tuple(student_output.shape))

    def check_shapes(
        self, key: OutputKey | None, teacher_shape: tuple, student_shape: tuple
    ) -> None:
        """Check one pair of shapes, batch first; `None` stands for any size.

        Raises:
            ValueError: if the formula cannot compare them.
        """
        if shapes_fit(teacher_shape, student_shape):
            return
        place = "outputs" if key is None else f"outputs {key!r}"
        raise ValueError(
            problem(
                f"{place} of shape {teacher_shape} from the teacher and {student_shape} from the "
                f"student for {type(self).__name__}",
                "equal shapes, the last axis being the classes",
                "give both models the same number of classes, or name the outputs that match, "
                f"as in {type(self).__name__}(outputs=[...])",
            )
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"outputs": self.outputs}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DistillationLoss:
        """Rebuild the loss from `get_config`."""
        return cls(**config)


def matching_outputs(
    teacher_outputs: Any, student_outputs: Any, keys: Sequence[OutputKey] | None
) -> list[tuple[OutputKey | None, Any, Any]]:
    """Pair the outputs to compare: a list of `(key, teacher_output, student_output)`.

    The key of a single output is `None`.

    Raises:
        ValueError: if the structures differ and no keys say what belongs together, or a key is
            missing.
    """
    teacher, student = _as_mapping(teacher_outputs), _as_mapping(student_outputs)
    if keys is None:
        if set(teacher) != set(student):
            raise ValueError(
                problem(
                    f"outputs {list(teacher)} from the teacher and {list(student)} from the "
                    "student",
                    "the same outputs from both",
                    "name those to compare with `outputs=[...]` in the distillation loss",
                )
            )
        keys = list(student)
    missing = [key for key in keys if key not in teacher or key not in student]
    if missing:
        raise ValueError(
            problem(
                f"outputs={list(keys)!r} where the teacher has {list(teacher)} and the student "
                f"{list(student)}",
                "names or indexes that both models have",
                f"leave out or correct {missing}",
            )
        )
    return [(key, teacher[key], student[key]) for key in keys]


def weighted_mean(values: Any, sample_weight: Any = None, mask: Any = None) -> Any:
    """Sum of the weighted values over the number of values that the mask leaves.

    The one place where values per example become a loss. With `tf.distribute` the result is the
    replica's share of the mean, as Keras' own losses return it, because gradients are summed over
    replicas.

    Args:
        values: tensor of shape `(batch, ...)`, or a scalar, which no weight can split.
        sample_weight: `None` or a tensor of shape `(batch,)`, `(batch, 1)` or like `values`.
        mask: `None` or a tensor like `sample_weight`; 0 or `False` leaves a value out.
    """
    if len(values.shape) == 0:
        return values / _keras.number_of_replicas()
    count = ops.cast(ops.size(values), values.dtype)
    if mask is not None:
        mask = ops.cast(ops.broadcast_to(_align(mask, values), ops.shape(values)), values.dtype)
        # A masked value may be NaN, and NaN times 0 is NaN: choose, do not multiply.
        values = ops.where(ops.cast(mask, "bool"), values, ops.zeros_like(values))
        count = ops.sum(mask)
    if sample_weight is not None:
        values = values * ops.cast(_align(sample_weight, values), values.dtype)
    return ops.divide_no_nan(ops.sum(values), count) / _keras.number_of_replicas()


def _align(weight: Any, values: Any) -> Any:
    """Give `weight` the rank of `values`: batch first, ones behind."""
    weight = ops.convert_to_tensor(weight)
    while len(weight.shape) > len(values.shape) and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < len(values.shape):
        weight = ops.expand_dims(weight, axis=-1)
    return weight


def _as_mapping(outputs: Any) -> dict[OutputKey | None, Any]:
    if isinstance(outputs, dict):
        return dict(outputs)
    if isinstance(outputs, list | tuple):
        return dict(enumerate(outputs))
    return {None: outputs}


def _part(structure: Any, key: OutputKey | None) -> Any:
    """The part of `structure` that belongs to output `key`; one tensor belongs to all of them."""
    if structure is None or key is None:
        return structure
    if isinstance(structure, dict | list | tuple):
        return _as_mapping(structure).get(key)
    return structure
