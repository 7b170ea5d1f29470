"""The base class of teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_kd import _graphs, _keras
from keras_kd._checks import problem
from keras_kd.taps import Tap, Tapped
from keras_kd.teachers.classes import Classes, ClassIndexes, check_all_known, mark_classes


class Teacher:
    """Base class: a subclass returns in `__call__` its outputs for a batch.

    A `keras_kd.Distiller` makes a `ModelTeacher` of a model and an `Ensemble` of a list of models.

    A subclass that can be saved with a Distiller has `get_config`, and `from_config` where its
    arguments have to be rebuilt first.

    Attributes:
        name: for messages.
        supports_jit: whether a step that runs the teacher can be compiled by XLA.
        brings_outputs: whether the data contain the teacher's outputs (see `joined`), instead of
            its inputs.
        key_name: the entry of dict inputs by which such a teacher identifies an example, if there
            is one.
    """

    name: str
    supports_jit: bool = True
    brings_outputs: bool = False
    key_name: str | None = None

    def __call__(self, inputs: Any, student: Tapped) -> Tapped:
        """The targets of a batch; the Distiller stops every gradient into them.

        Args:
            inputs: the batch, as the teacher takes it.
            student: what the student's forward pass gave, for teachers that need it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define its outputs.")

    @property
    def models(self) -> list[Any]:
        """The models that the teacher runs: frozen, and saved with a Distiller in this order."""
        return []

    @property
    def learning_models(self) -> list[Any]:
        """The models whose weights change while the student trains: part of every checkpoint."""
        return []

    @property
    def student_layer_names(self) -> list[str]:
        """The student's layers that `__call__` reads from `student.features`."""
        return []

    @property
    def input_shapes(self) -> list[tuple] | None:
        """The shapes of the inputs, batch first; `None` where they are unknown."""
        return None

    @property
    def input_names(self) -> Any:
        """The names of the inputs in their structure, see `keras_kd._graphs.input_names`."""
        return None

    def tap(self, layer_names: Sequence[str]) -> None:
        """Receive the names of the hidden layers that the losses read.

        Raises:
            ValueError: if there is no such layer, or there are no layers to read.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define its layers.")

    def meet(self, student: Any) -> None:
        """Receive the student, before the first step.

        Raises:
            ValueError: if the teacher cannot teach it.
        """

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The result of `__call__` as tensors without values; `None` if it is unknown.

        Args:
            student: the same of the student's forward pass.
        """
        return None

    def after_step(self, student: Any, step: Any = None) -> None:
        """Update after a change of the student's weights; part of the compiled step.

        Args:
            student: the student.
            step: how many updates it has had; `None` where they are not counted.
        """

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments.

        Raises:
            ValueError: if the teacher cannot be saved.
        """
        raise problem(
            f"the teacher {self.name!r} of class {type(self).__name__}, which has no "
            "get_config, to be saved",
            "a teacher that can be saved, or a distiller that is saved without its teacher",
            "build the Distiller with save_teacher=False and set distiller.teacher after "
            "loading, or give the class a get_config",
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Teacher:
        """Rebuild the teacher from `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_kd")
class ModelTeacher(Teacher):
    """A trained model of either Keras.

    Args:
        model: the model; it runs as in inference.
        classes: which class of the student each column of the model's output is, where the two do
            not have the same classes: a list, with `None` for columns that the student does not
            have, or a dict from columns to classes, which leaves out the others. They are removed
            before the softmax. Classes of the student that are not in it are learned from labels
            alone.

    Raises:
        ValueError: if it is not a model, or `classes` is neither list nor dict.

    Example:
        ```python
        teacher = ModelTeacher(of_1000_classes, classes={207: 0, 281: 1, 340: 2})
        padded = ModelTeacher(of_50304_tokens, classes={token: token for token in range(50257)})
        ```
    """

    def __init__(self, model: Any, *, classes: ClassIndexes = None) -> None:
        self.model = _keras.check_model("teacher", model)
        self.classes = None if classes is None else Classes(classes)
        self._has_student = False
        self._tap = Tap(model)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def models(self) -> list[Any]:
        """The model."""
        return [self.model]

    @property
    def input_shapes(self) -> list[tuple] | None:
        """The shapes of the model's inputs."""
        return _graphs.input_shapes(self.model)

    @property
    def input_names(self) -> Any:
        """The names of the model's inputs."""
        return _graphs.input_names(self.model)

    def tap(self, layer_names: Sequence[str]) -> None:
        """Read these layers of the model; "backbone/block3" is one of a nested model."""
        self._tap = Tap(self.model, layer_names)

    def meet(self, student: Any) -> None:
        """Note that there is a student, which may have other classes than the teacher."""
        self._has_student = True

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The model's outputs and features."""
        tapped = self._tap.shapes()
        return None if tapped is None else self._in_classes(tapped)

    def __call__(self, inputs: Any, student: Tapped) -> Tapped:
        """One forward pass."""
        return self._in_classes(self._tap(inputs, training=False))

    def _in_classes(self, tapped: Tapped) -> Tapped:
        """The model's outputs in the classes of the student."""
        outputs = plain_outputs(tapped.outputs)
        if self.classes is None:
            return tapped._replace(outputs=outputs)
        output = single_output(outputs)
        if output is None:
            raise problem(
                f"classes=... for the teacher {self.name!r} with the outputs "
                f"{list(outputs) if isinstance(outputs, dict) else len(outputs)}",
                "a teacher of one output, or of one that is called 'logits'",
                "use keras_kd.teachers.Ensemble([teacher], outputs=[...], classes=[...])",
            )
        output, known = self.classes.select(output, self.name)
        if self._has_student:
            return tapped._replace(outputs=mark_classes(output, known))
        check_all_known(known, self.classes.config)
        return tapped._replace(outputs=output)

    def get_config(self) -> dict[str, Any]:
        """The model, without its weights.

        Raises:
            ValueError: if it is a tf_keras model, which no file of Keras 3 holds.
        """
        if _keras.is_tf_keras_model(self.model):
            raise problem(
                f"the tf_keras teacher {self.name!r} for a file of Keras 3",
                "a Keras 3 teacher, or a distiller that is saved without its teacher",
                "build the Distiller with save_teacher=False and set distiller.teacher after "
                "loading",
            )
        config = {"model": keras.saving.serialize_keras_object(self.model)}
        # A subclass need not take them.
        return config if self.classes is None else {**config, "classes": self.classes.config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelTeacher:
        """Rebuild the teacher from `get_config`."""
        model = keras.saving.deserialize_keras_object(config["model"])
        classes = {"classes": config["classes"]} if "classes" in config else {}
        return cls(model, **classes)


def plain_outputs(outputs: Any) -> Any:
    """Outputs as tensors: of an object that has `logits`, as many libraries return it, these."""
    if type(outputs) in (dict, list, tuple) or keras.ops.is_tensor(outputs):
        return outputs
    logits = getattr(outputs, "logits", None)
    return outputs if logits is None else logits


def single_output(outputs: Any) -> Any:
    """The one output among these that a student of one output learns from, or `None`.

    It is the only one, or that of a dict which is called "logits".
    """
    if isinstance(outputs, dict):
        alone = next(iter(outputs.values())) if len(outputs) == 1 else None
        return outputs.get("logits", alone)
    if isinstance(outputs, list | tuple):
        return outputs[0] if len(outputs) == 1 else None
    return outputs
