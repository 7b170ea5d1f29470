"""Losses on hidden features: the layers they read, and what may stand between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_kd import _attention, _keras
from keras_kd._checks import problem, shapes_fit
from keras_kd.losses.base import DistillationLoss, OutputKey, Pair, shape_of
from keras_kd.losses.reduction import (
    has_positions_of,
    mask_of_examples,
    weight_of_examples,
    without_ignored,
)

LayerNames = str | Sequence[str]


class FeatureLoss(DistillationLoss):
    """A loss that compares outputs of hidden layers.

    Without layer names it compares the models' outputs, and called directly, its arguments.

    Args:
        teacher_layer_name: the teacher's layer, or a list of layers. "backbone/block3" is the layer
            "block3" of the nested model "backbone", or of a layer made of others; "lstm:1" is the
            second output of a layer with several.
        student_layer_name: the student's layer, or as many as the teacher's. The loss compares them
            in order and sums the pairs, unless it states otherwise. A layer that TF-MOT has wrapped
            keeps the name it had before.
        adapter: what brings the student's features to the shape that the loss needs, where they do
            not have it: `"auto"`, a trainable layer that `keras_kd.Distiller` makes (a 1x1
            convolution or Dense, after pooling or resizing); a `keras.layers.Layer` of your own, or
            one per pair in a list; `None` to refuse features of other shapes.

    Raises:
        TypeError: if a name is no string or the adapter no layer.
        ValueError: if there are not as many names for both models.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        adapter: Any = "auto",
    ) -> None:
        super().__init__()
        self.teacher_layer_name = _check_names("teacher_layer_name", teacher_layer_name)
        self.student_layer_name = _check_names("student_layer_name", student_layer_name)
        if _count(teacher_layer_name) != _count(student_layer_name):
            raise problem(
                f"teacher_layer_name={teacher_layer_name!r} and "
                f"student_layer_name={student_layer_name!r}",
                "as many layers of the student as of the teacher",
                "name for each layer of one model the layer of the other to compare it with",
            )
        self.adapter = _check_adapter(adapter)

    @property
    def reads_outputs(self) -> bool:
        """Whether it compares the models' outputs: where it names no layers."""
        return self.student_layer_name is None

    def layers(self, side: str) -> list[str]:
        """The layers of one model, "teacher" or "student", that it reads."""
        return listed(getattr(self, f"{side}_layer_name"))

    def read(self, side: str, outputs: Any, features: Mapping[str, Any]) -> Any:
        """The features of the layers, in a list where they were named in one."""
        names = getattr(self, f"{side}_layer_name")
        return read_features(names, outputs, [features[name] for name in self.layers(side)])

    # Whether the formula pools positions or compares channels, which heads, queries and keys of
    # attention are not.
    reads_maps = False

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """The shape that the student's features must have to be compared with the teacher's.

        Args:
            teacher_shape: shape of the teacher's features, batch first.
            student_shape: shape of the student's features.

        Returns:
            The teacher's shape; formulas that compare features of different shapes return the
            student's where it will do.
        """
        return teacher_shape

    def prepare(self, teacher_output: Any, student_output: Any) -> tuple[Any, Any]:
        """Both in the student's precision, at least float32; no gradient for the teacher."""
        student = keras.tree.map_structure(_keras.at_least_float32, student_output)
        precision = keras.tree.flatten(student)[0].dtype
        teacher = keras.tree.map_structure(
            lambda tensor: ops.cast(ops.stop_gradient(tensor), precision), teacher_output
        )
        return teacher, student

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The loss of one pair of tensors as a scalar: the weighted mean of `per_example`.

        Weights of positions that the features do not have are averaged over each example.
        """
        teacher, student = pair.teacher, pair.student
        weight, mask = pair.sample_weight, pair.mask
        if weight is not None and not has_positions_of(student, weight):
            weight = weight_of_examples(weight)
        if mask is not None:
            teacher = without_ignored(teacher, mask=mask)
            if has_positions_of(student, mask):
                student = without_ignored(student, mask=mask)
            else:
                # An adapter has changed the number of positions.
                mask = mask_of_examples(mask)
        return super().of_pair(Pair(teacher, student, weight, mask), **context)

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check structure, shapes and kind of the features.

        Raises:
            ValueError: if the shapes do not fit, or the formula cannot compare attention scores.
        """
        self.check_kinds(teacher_outputs, student_outputs)
        super().validate_outputs(teacher_outputs, student_outputs)

    def check_kinds(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Check, before any adapter, that attention scores are not taken for images.

        Raises:
            ValueError: if they would be pooled or resized.
        """
        for _, teacher, student in self.pairs(teacher_outputs, student_outputs):
            if not any(map(_attention.is_attention_scores, keras.tree.flatten([teacher, student]))):
                continue
            shapes = shape_of(teacher), shape_of(student)
            if self.reads_maps or not _all_fit(self.needed_shape(*shapes), shapes[1]):
                raise problem(
                    f"attention scores of shapes {shapes[0]} and {shapes[1]} for "
                    f"{type(self).__name__}",
                    "features whose last axis is the channels",
                    "name the attention layers in keras_kd.losses.AttentionScores("
                    "'teacher_layer', 'student_layer'), which pairs heads",
                )

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes, batch first, the student's after any adapter.

        Raises:
            ValueError: if the formula cannot compare them.
        """
        needed = self.needed_shape(teacher_shape, student_shape)
        if _all_fit(needed, student_shape):
            return
        raise problem(
            f"features of shape {teacher_shape} from the teacher and {student_shape} from the "
            f"student for {type(self).__name__}",
            f"features of shape {needed} from the student",
            "train with keras_kd.Distiller and adapter='auto', which puts a trainable layer "
            "between them, give a layer as `adapter`, or name layers that fit",
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        is_given = self.adapter is not None and self.adapter != "auto"
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
            "adapter": keras.saving.serialize_keras_object(self.adapter)
            if is_given
            else self.adapter,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureLoss:
        """Rebuild the loss from `get_config`."""
        adapter = config.get("adapter")
        if isinstance(adapter, list):
            adapter = [keras.saving.deserialize_keras_object(layer) for layer in adapter]
            config = {**config, "adapter": adapter}
        return super().from_config(config)


def listed(names: LayerNames | None) -> list[str]:
    """The names of layers as a loss takes them, in a list."""
    return [names] if isinstance(names, str) else list(names or [])


def read_features(names: LayerNames | None, outputs: Any, features: list[Any]) -> Any:
    """The features of one layer, a list of those of several, or the outputs where none is named."""
    if not features:
        return outputs
    return features[0] if isinstance(names, str) else features


def _check_names(argument: str, names: Any) -> str | list[str] | None:
    listed = names if isinstance(names, list | tuple) else [names]
    if names is not None and not (listed and all(isinstance(name, str) for name in listed)):
        raise problem(
            f"{argument}={names!r}",
            "the name of a layer, or a list of names",
            "pass for example 'conv2', or 'backbone/block3' for a layer of a nested model",
            kind=TypeError,
        )
    return list(names) if isinstance(names, list | tuple) else names


def _count(names: Any) -> int | None:
    if names is None:
        return None
    return len(names) if isinstance(names, list | tuple) else 1


def _check_adapter(adapter: Any) -> Any:
    layers = adapter if isinstance(adapter, list | tuple) else [adapter]
    if adapter is None or (isinstance(adapter, str) and adapter == "auto"):
        return adapter
    if not all(isinstance(layer, keras.layers.Layer) for layer in layers):
        raise problem(
            f"adapter={adapter!r}",
            "'auto', None, a keras.layers.Layer, or a list of layers",
            "pass for example keras.layers.Conv2D(64, 1) for a teacher's map of 64 channels",
            kind=TypeError,
        )
    return list(adapter) if isinstance(adapter, list | tuple) else adapter


def _all_fit(needed: Any, given: Any) -> bool:
    if isinstance(needed, list):
        return len(needed) == len(given) and all(map(shapes_fit, needed, given))
    return shapes_fit(needed, given)
