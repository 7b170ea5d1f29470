"""Trainable bridges from a student's features to those of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_kd._checks import one_line, problem, shapes_fit
from keras_kd.losses import DistillationLoss, FeatureLoss
from keras_kd.losses.base import shape_of
from keras_kd.losses.features.maps import averaging_windows


@keras.saving.register_keras_serializable(package="keras_kd")
class Adapter(keras.layers.Layer):
    """Brings features to another size and number of channels.

    Positions are averaged to fewer or interpolated to more, then the channels of each position are
    mixed linearly: a 1x1 convolution for maps, Dense for vectors. Positions that the target does
    not have are averaged.

    Args:
        shape: the shape to reach without the batch, `(..., channels)`.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, shape: Sequence[int | None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        # The mask of a sequence is looked up before its features are adapted.
        self.supports_masking = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the mixing weights, where the number of channels changes."""
        self.mixing = None
        if self.shape[-1] != input_shape[-1]:
            self.mixing = keras.layers.Dense(
                self.shape[-1], use_bias=False, name="mixing", dtype=self.dtype_policy
            )
            self.mixing.build((*input_shape[:-1], input_shape[-1]))
        self._resizing = [
            None if size is None or given is None or size == given else _resizing(given, size)
            for given, size in zip(input_shape[1:-1], self.shape[:-1], strict=False)
        ]

    def call(self, features: Any) -> Any:
        """Features of shape `(batch, ..., channels)` to `(batch, *shape)`."""
        if len(features.shape) > len(self.shape) + 1:
            features = ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))
        for axis, matrix in enumerate(self._resizing, start=1):
            if matrix is not None:
                matrix = ops.cast(ops.convert_to_tensor(matrix), features.dtype)
                moved = ops.moveaxis(features, axis, -1)
                features = ops.moveaxis(ops.matmul(moved, matrix), -1, axis)
        return features if self.mixing is None else self.mixing(features)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple:
        """The shape to reach, with the batch in front."""
        sizes = [
            given if size is None else size
            for given, size in zip(input_shape[1:-1], self.shape[:-1], strict=False)
        ]
        return (input_shape[0], *sizes, self.shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "shape": self.shape}


class Bridge(keras.layers.Layer):
    """What trains beside a student for one loss: adapters, and the loss's own weights.

    A layer of the Distiller, saved with it, and no part of the student.

    Args:
        loss: a distillation loss.
        **kwargs: further arguments of `keras.layers.Layer`.

    Attributes:
        shapes: the structures of shapes of teacher and student that it connects; `None` before.
    """

    def __init__(self, loss: DistillationLoss, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = loss
        self.adapters: list[keras.layers.Layer | None] = []
        self.shapes: list[Any] | None = None
        self.learned: list[keras.Variable] = []

    def connect(self, teacher: Any, student: Any) -> None:
        """Make what is missing between features of these shapes, and check that they fit then.

        Existing parts are kept, also with another teacher later.

        Args:
            teacher: the teacher's tensors that the loss compares, values not needed.
            student: the student's tensors.

        Raises:
            ValueError: if the shapes do not fit and no adapter can or may change that.
        """
        shapes = [_shapes_of(teacher), _shapes_of(student)]
        if isinstance(self.loss, FeatureLoss):
            self.loss.check_kinds(teacher, student)
            if not self.built:
                self.adapters = _adapters(self.loss, teacher, student)
            student = self._adapted_shapes(student)
        self.loss.validate_outputs(teacher, student)
        if not self.built:
            for _, one, other in self.loss.pairs(teacher, student):
                self.loss.build(shape_of(one), shape_of(other))
            self.learned = list(self.loss.weights)
        self.shapes = shapes
        self.built = True

    def adapt(self, student: Any) -> Any:
        """The student's features as the loss compares them."""
        if not any(self.adapters):
            return student
        adapted = [
            features if adapter is None else adapter(features)
            for adapter, features in zip(self.adapters, _listed(student), strict=True)
        ]
        return _structured_like(student, adapted)

    def _adapted_shapes(self, student: Any) -> Any:
        shapes = [
            features
            if adapter is None
            else keras.KerasTensor(adapter.compute_output_shape(features.shape))
            for adapter, features in zip(self.adapters, _listed(student), strict=True)
        ]
        return _structured_like(student, shapes)


def _adapters(loss: FeatureLoss, teacher: Any, student: Any) -> list[keras.layers.Layer | None]:
    """One adapter, or none, for each of the student's features."""
    names = _listed(loss.student_layer_name) if loss.student_layer_name else [""]
    given = shape_of(_listed(student))
    if loss.adapter is not None and loss.adapter != "auto":
        layers = _listed(loss.adapter)
        if len(layers) != len(given):
            raise problem(
                f"{len(layers)} adapters for {len(given)} layers of the student",
                f"one adapter for each of {names}",
                "give a list of layers in the order of student_layer_name",
            )
        for layer, shape in zip(layers, given, strict=True):
            _build(loss, layer, shape)
        return layers
    needed = []
    for _, one, other in loss.pairs(teacher, student):
        shape = loss.needed_shape(shape_of(one), shape_of(other))
        needed += shape if isinstance(shape, list) else [shape]
    if loss.adapter is None:
        return [None] * len(given)
    return [_adapter(*shapes) for shapes in zip(needed, given, strict=True)]


def _build(loss: FeatureLoss, layer: keras.layers.Layer, shape: tuple) -> None:
    try:
        if not layer.built:
            layer.build(shape)
        layer.compute_output_shape(shape)
    except Exception as error:
        # A layer may be the user's own, and raise any error.
        raise problem(
            f"the adapter {layer.name!r} for {type(loss).__name__} on features of shape "
            f"{shape}: {one_line(error)[:200]}",
            "a layer that takes these features",
            "pass for example keras.layers.Dense(units), which mixes the channels of features "
            "of any shape",
        ) from error


def _adapter(needed: tuple, given: tuple) -> Adapter | None:
    # The loss reports what does not fit better than an adapter that cannot be made.
    if shapes_fit(needed, given) or not _can_reach(needed, given):
        return None
    # In full precision also beside a student in half precision: it is small, and trained.
    adapter = Adapter(needed[1:], name="adapter", dtype="float32")
    adapter.build(given)
    return adapter


def _can_reach(needed: tuple, given: tuple) -> bool:
    if len(needed) < 2 or len(given) < 2 or None in (needed[-1], given[-1]):
        return False
    if len(needed) == 2:
        return True
    return len(needed) == len(given) and all(
        size in (None, have) or have is not None
        for size, have in zip(needed[1:-1], given[1:-1], strict=True)
    )


def _resizing(given: int, size: int) -> np.ndarray:
    """The matrix `(given, size)` that averages positions to fewer, or interpolates to more."""
    if size < given:
        return averaging_windows(given, size)
    centres = np.clip((np.arange(size) + 0.5) * given / size - 0.5, 0, given - 1)
    return np.maximum(0, 1 - np.abs(np.arange(given)[:, None] - centres)).astype("float32")


def _shapes_of(tensors: Any) -> Any:
    """The shapes of a structure of tensors, as lists, which files can hold."""
    return keras.tree.map_structure(lambda tensor: list(shape_of(tensor)), tensors)


def _listed(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return list(values.values())
    return list(values) if isinstance(values, list | tuple) else [values]


def _structured_like(structure: Any, parts: list[Any]) -> Any:
    """What `_listed` made a list of, with other parts."""
    if isinstance(structure, dict):
        return dict(zip(structure, parts, strict=True))
    return parts if isinstance(structure, list | tuple) else parts[0]
