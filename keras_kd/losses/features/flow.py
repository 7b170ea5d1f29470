"""Flow of the solution procedure: how features change from one layer to another."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_kd._checks import problem
from keras_kd.losses.base import OutputKey, Pair
from keras_kd.losses.features.base import LayerNames
from keras_kd.losses.features.maps import MapLoss, check_maps, flat, number_of_positions, same_size


def flow(first: Any, second: Any) -> Any:
    """Mean over the positions of the products of two layers' channels.

    Args:
        first: features of one layer, of shape `(batch, ..., first channels)`.
        second: features of a later layer, of shape `(batch, ..., second channels)`.

    Returns:
        A tensor of shape `(batch, first channels, second channels)`.

    Raises:
        ValueError: if features are vectors without positions, or a size is not known.
    """
    first, second = map(flat, same_size(first, second))
    return ops.einsum("bpc,bpd->bcd", first, second) / number_of_positions(first)


def flow_of_solution(teacher_features: Any, student_features: Any) -> Any:
    """Mean squared difference of the flows: `(batch,)`; both arguments hold two tensors."""
    difference = flow(*student_features) - flow(*teacher_features)
    return ops.mean(ops.square(difference), axis=(1, 2))


@keras.saving.register_keras_serializable(package="keras_kd")
class FlowOfSolution(MapLoss):
    """Flow of solution procedure (FSP): mean squared difference of the flows between two layers.

    Transfers how features change on the way through a stage of the network: the flow is the Gram
    matrix of the features at its beginning and at its end. Made to initialize a student before it
    is trained on the outputs; its usual weight is 50.

        flow(f, g) = mean over positions of f g^T, of shape (channels of f, channels of g)
        loss = mean over the elements of (flow(student) - flow(teacher))^2

    Of a model's two maps the larger is first averaged, along each axis, to the smaller. The models'
    maps may differ in size; adapters make the numbers of channels equal.

    Args:
        teacher_layer_name: two of the teacher's layers, of shapes `(batch, ..., channels)` with
            equally many axes of positions, of sizes that are known. Use one `FlowOfSolution` for
            each stage.
        student_layer_name: two of the student's layers.
        adapter: see `FeatureLoss`.

    Raises:
        ValueError: if there are not two layers of each model; later, if features have no
            positions.

    Example:
        >>> import numpy as np
        >>> loss = FlowOfSolution(["begin", "end"], ["begin", "end"])
        >>> first, second = np.ones((1, 4, 1)), np.ones((1, 2, 1))
        >>> float(loss.compute_loss([first, 3.0 * second], [first, second]))
        4.0

    Reference:
        Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation: Fast Optimization, Network
        Minimization and Transfer Learning, CVPR 2017. The paper sums over the elements and pools
        by maxima; here the mean is taken and the average, as in RepDistiller.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        adapter: Any = "auto",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=adapter)
        for names in (self.teacher_layer_name, self.student_layer_name):
            if names is not None:
                _check_two(names, f"the layers {names!r}")

    def pairs(self, teacher_outputs: Any, student_outputs: Any) -> list[tuple[Any, Any, Any]]:
        """One pair: the two features of the teacher with the two of the student.

        Raises:
            ValueError: if there are not two of each.
        """
        both = []
        for outputs in (teacher_outputs, student_outputs):
            if isinstance(outputs, dict):
                outputs = list(outputs.values())
            _check_two(outputs, "the features of one layer or of more than two")
            both.append(list(outputs))
        return [(None, *both)]

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The loss as a scalar; of the masks of two layers, the first that there is counts."""
        if isinstance(pair.mask, list | tuple):
            first = next((part for part in pair.mask if part is not None), None)
            pair = dataclasses.replace(pair, mask=first)
        return super().of_pair(pair, **context)

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`flow_of_solution` of the maps."""
        return flow_of_solution(teacher_output, student_output)

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """The student's own sizes with the teacher's channels, a list of two shapes."""
        return [
            (*student[:-1], teacher[-1])
            for teacher, student in zip(teacher_shape, student_shape, strict=True)
        ]

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check two shapes of each model.

        Raises:
            ValueError: if they are vectors, or the formula cannot compare them.
        """
        check_maps(*teacher_shape)
        check_maps(*student_shape)
        super().check_shapes(key, teacher_shape, student_shape)


def _check_two(items: Any, received: str) -> None:
    if not isinstance(items, list | tuple) or len(items) != 2:
        raise problem(
            f"{received} for FlowOfSolution",
            "two layers of each model, between which the features flow",
            "name where a stage begins and where it ends, as in "
            "FlowOfSolution(['conv1', 'conv2'], ['conv1', 'conv2'])",
        )
