"""Who produces the targets of a Distiller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_kd import _keras
from keras_kd.taps import Tap, Tapped


class Teacher:
    """Base class: a subclass says in `__call__` what it teaches about a batch.

    A `keras_kd.Distiller` makes a `ModelTeacher` of a model and an `Ensemble` of a list of models.

    Attributes:
        name: for messages.
    """

    name: str

    def __call__(self, inputs: Any, student: Tapped) -> Tapped:
        """The targets of a batch; the Distiller stops every gradient into them.

        Args:
            inputs: the batch, as the teacher takes it.
            student: what the student's forward pass gave, for teachers that need it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it teaches.")

    @property
    def models(self) -> list[Any]:
        """The models that the teacher asks: frozen, and saved with a Distiller in this order."""
        return []

    @property
    def learning_models(self) -> list[Any]:
        """The models whose weights change while the student trains: part of every checkpoint."""
        return []

    @property
    def input_shapes(self) -> list[tuple] | None:
        """The shapes of the inputs, batch first; `None` where the teacher does not say."""
        return None

    def tap(self, layer_names: Sequence[str]) -> None:
        """Be told which hidden layers the losses read.

        Raises:
            ValueError: if there is no such layer, or there are no layers to read.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which layers it has.")

    def meet(self, student: Any) -> None:
        """Be told of the student, before the first step.

        Raises:
            ValueError: if the teacher cannot teach it.
        """

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """What `__call__` will give, as tensors without values; `None` if it is not known.

        Args:
            student: the same of the student's forward pass.
        """
        return None

    def after_step(self, student: Any) -> None:
        """Be told that the student's weights have changed; part of the compiled step."""


class ModelTeacher(Teacher):
    """A trained model of either Keras.

    Args:
        model: the model; it is asked as in inference.

    Raises:
        ValueError: if it is not a model.
    """

    def __init__(self, model: Any) -> None:
        self.model = _keras.check_model("teacher", model)
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
        return _keras.input_shapes(self.model)

    def tap(self, layer_names: Sequence[str]) -> None:
        """Read these layers of the model; "backbone/block3" is one of a nested model."""
        self._tap = Tap(self.model, layer_names)

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The model's outputs and features."""
        return self._tap.shapes()

    def __call__(self, inputs: Any, student: Tapped) -> Tapped:
        """One forward pass."""
        return self._tap(inputs, training=False)
