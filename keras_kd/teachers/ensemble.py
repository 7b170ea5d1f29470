"""Conversion of arguments to teachers, and ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any

import keras

from keras_kd import _keras
from keras_kd._checks import check_choice, check_number, problem, shapes_fit
from keras_kd._logits import taught_classes
from keras_kd.taps import Tapped
from keras_kd.teachers.base import ModelTeacher, Teacher
from keras_kd.teachers.blending import (
    Voice,
    blended_shape,
    mean_of_logits,
    mean_of_probabilities,
    without_gaps,
)
from keras_kd.teachers.classes import Classes, ClassIndexes, check_all_known, mark_classes
from keras_kd.teachers.function import Function

_MEANS = {"probabilities": mean_of_probabilities, "logits": mean_of_logits}

OutputKey = str | int


@keras.saving.register_keras_serializable(package="keras_kd")
class Ensemble(Teacher):
    """The weighted mean of several teachers; each may teach a part of the outputs or classes.

        p = sum_m weight_m * softmax(logits_m / T)          average="probabilities"
        p = softmax(sum_m weight_m * logits_m / T)          average="logits"

    The mean of probabilities is taken at the temperature T of each loss, schedules included, as
    Hinton et al. do with the geometric mean, which is the mean of logits. For losses without a
    temperature T is 1. Members that end in a softmax or sigmoid are recognised. Members with
    logits, and an average of probabilities, are taken for classifiers: use `average="logits"` for
    regression. An output of only one member is passed on unchanged.

    A loss names a hidden layer of a member as "member_name/layer_name".

    Args:
        teachers: models of either Keras, other objects of `keras_kd.teachers`, or functions.
        weights: one per member, above 0; divided by their sum. `None` for equal ones. Where
            members teach a part of the outputs, an output's weights are divided by their own sum.
        average: `"probabilities"` or `"logits"`.
        outputs: one entry per member: which outputs of the student it teaches, a key or index or a
            list of them, or `None` for all that it has. A member with a single output may teach
            any one. The ensemble has the outputs that are taught.
        classes: one entry per member: a list of which class of the student each of its
            columns is, with `None` for a column that the student does not have; a dict from columns
            to classes, which leaves out the others; or `None` for all classes. A column that is
            left out is removed before the softmax. Classes of the student that no member has are
            learned from labels alone: in a Distiller the losses on outputs then get the student's
            logits of the other classes only. With softmax outputs, a member gives no probability to
            classes that it does not have, and its weight is how likely an example is one of its
            classes. With sigmoid outputs, and in a mean of logits, a class has the mean of those
            that have it.
        name: for messages.

    Raises:
        TypeError: if a weight is no number.
        ValueError: if there are no members, an argument does not fit their number, or they take
            inputs of different shapes.

    Example:
        >>> import numpy as np
        >>> sure, unsure = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
        >>> ensemble = Ensemble([lambda x: sure, lambda x: unsure], weights=[3, 1])
        >>> tapped = ensemble(np.zeros((1, 4)), None).outputs
        >>> np.exp(tapped).round(3).tolist()
        [[0.8, 0.2]]

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, NIPS workshop 2014,
        arXiv 1503.02531 (2015), sections 1 and 5.
    """

    def __init__(
        self,
        teachers: Sequence[Any],
        weights: Sequence[float] | None = None,
        *,
        average: str = "probabilities",
        outputs: Sequence[OutputKey | Sequence[OutputKey] | None] | None = None,
        classes: Sequence[ClassIndexes] | None = None,
        name: str = "ensemble",
    ) -> None:
        if not isinstance(teachers, list | tuple) or not teachers:
            raise problem(
                f"teachers={teachers!r}",
                "a list of one model or more",
                "pass for example Ensemble([first_model, second_model])",
            )
        # A member may be a list, which is an Ensemble in its turn.
        self.teachers = [as_teacher(teacher) for teacher in teachers]
        self.name = name
        count = len(teachers)
        self.weights = [
            check_number("weights", weight, above=0, fix="use numbers such as 1.0, or leave it out")
            for weight in _one_each("weights", weights, count, default=1.0)
        ]
        self.average = check_choice("average", average, tuple(_MEANS))
        self.outputs = [
            _checked_keys(keys) for keys in _one_each("outputs", outputs, count, default=None)
        ]
        self.classes = [
            None if given is None else Classes(given)
            for given in _one_each("classes", classes, count, default=None)
        ]
        self._has_student = False
        self._check_none_is_stored()
        self._features: list[tuple[Teacher, str, str]] = []
        self._check_inputs()

    @property
    def models(self) -> list[Any]:
        """The models of all members, in order."""
        return [model for teacher in self.teachers for model in teacher.models]

    @property
    def learning_models(self) -> list[Any]:
        """Those of all members."""
        return [model for teacher in self.teachers for model in teacher.learning_models]

    @property
    def student_layer_names(self) -> list[str]:
        """Those of all members."""
        return [name for teacher in self.teachers for name in teacher.student_layer_names]

    @property
    def supports_jit(self) -> bool:
        """Whether every member does."""
        return all(teacher.supports_jit for teacher in self.teachers)

    @property
    def input_shapes(self) -> list[tuple] | None:
        """The shapes of the inputs of the first member whose inputs are known."""
        return next((x.input_shapes for x in self.teachers if x.input_shapes is not None), None)

    @property
    def input_names(self) -> Any:
        """The names of the inputs of the first member whose inputs are known."""
        return next((x.input_names for x in self.teachers if x.input_names is not None), None)

    def tap(self, layer_names: Sequence[str]) -> None:
        """Read these layers; "member_name/layer_name" is one of a member.

        Raises:
            ValueError: if there is no such member or layer, or two members have that name.
        """
        self._features = [(*self._member_and_layer(name), name) for name in layer_names]
        for teacher in self.teachers:
            teacher.tap([layer for member, layer, _ in self._features if member is teacher])

    def meet(self, student: Any) -> None:
        """Pass the student on to every member."""
        self._has_student = True
        for teacher in self.teachers:
            teacher.meet(student)

    def after_step(self, student: Any, step: Any = None) -> None:
        """Update every member after a change of the student's weights."""
        for teacher in self.teachers:
            teacher.after_step(student, step)

    def shapes(self, student: Tapped | None) -> Tapped | None:
        """The averaged outputs, where the shapes of all members' outputs are known."""
        shapes = [teacher.shapes(student) for teacher in self.teachers]
        tapped = [one for one in shapes if one is not None]
        if len(tapped) < len(shapes):
            return None
        return self._combined(
            tapped, lambda voices: keras.KerasTensor(blended_shape(voices), dtype="float32")
        )

    def __call__(self, inputs: Any, student: Tapped) -> Tapped:
        """One forward pass of each member."""
        tapped = [teacher(inputs, student) for teacher in self.teachers]
        return self._combined(tapped, _MEANS[self.average])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, without the weights of the models."""
        return {
            "teachers": [keras.saving.serialize_keras_object(x) for x in self.teachers],
            "weights": self.weights,
            "average": self.average,
            "outputs": self.outputs,
            "classes": self._given_classes,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Ensemble:
        """Rebuild the ensemble from `get_config`."""
        teachers = [keras.saving.deserialize_keras_object(x) for x in config["teachers"]]
        return cls(**{**config, "teachers": teachers})

    def _check_none_is_stored(self) -> None:
        stored = [teacher.name for teacher in self.teachers if teacher.brings_outputs]
        if stored:
            raise problem(
                f"the stored teachers {stored} as members of an ensemble",
                "members that compute their outputs from the inputs of a batch",
                "store the outputs of the ensemble: "
                "keras_kd.teachers.StoredTeacher.create([first_model, "
                "second_model], dataset, path)",
            )

    def _check_inputs(self) -> None:
        first = self.input_shapes
        if first is None:
            return
        for teacher in self.teachers:
            other = teacher.input_shapes
            if other is None or (len(first) == len(other) and all(map(shapes_fit, first, other))):
                continue
            raise problem(
                f"members for inputs of shape {first} and, in {teacher.name!r}, {other}",
                "the same inputs for all members",
                "put a layer such as Resizing in front of one, in a model of both",
            )

    def _member_and_layer(self, name: str) -> tuple[Teacher, str]:
        first, _, layer = name.partition("/")
        members = [teacher for teacher in self.teachers if teacher.name == first]
        if len(members) == 1 and layer:
            return members[0], layer
        names = [teacher.name for teacher in self.teachers]
        raise problem(
            f"layer name {name!r} for an ensemble of the members {names}",
            "the name of one member, a slash, and the name of its layer",
            f"write for example {names[0] + '/layer'!r}, and give every member a different name",
        )

    def _combined(self, tapped: Sequence[Tapped], mean: Callable[[list[Voice]], Any]) -> Tapped:
        voices: dict[OutputKey | None, list[Voice]] = {}
        for number, teacher in enumerate(self.teachers):
            for key, output in self._taught(number, tapped[number].outputs).items():
                classes = taught_classes(output)
                own = self.classes[number]
                if own is not None:
                    output, classes = own.select(output, teacher.name)
                voice = Voice(teacher.name, output, self.weights[number], classes)
                voices.setdefault(key, []).append(voice)
        outputs = {key: self._mean_of_all(group, mean) for key, group in voices.items()}
        features = {
            name: tapped[self.teachers.index(member)].features[layer]
            for member, layer, name in self._features
        }
        return Tapped(_structured(outputs), features)

    def _mean_of_all(self, voices: list[Voice], mean: Callable[[list[Voice]], Any]) -> Any:
        if len(voices) == 1 and voices[0].classes is None:
            return voices[0].output
        voices, known = without_gaps(voices)
        if known is None:
            return mean(voices)
        if not self._has_student:
            check_all_known(known, self._given_classes)
        return mark_classes(mean(voices), known) if self._has_student else mean(voices)

    @property
    def _given_classes(self) -> list[Any]:
        return [None if classes is None else classes.config for classes in self.classes]

    def _taught(self, number: int, outputs: Any) -> dict[OutputKey | None, Any]:
        """A member's outputs, by the outputs of the student; a single one has the key `None`."""
        keys = self.outputs[number]
        own: dict[Any, Any]
        if isinstance(outputs, dict):
            own = dict(outputs)
        elif isinstance(outputs, list | tuple):
            own = dict(enumerate(outputs))
        else:
            own = dict.fromkeys(keys if keys is not None and len(keys) == 1 else [None], outputs)
        if keys is None:
            return own
        if not set(keys) <= set(own):
            raise problem(
                f"outputs={keys!r} for the member {self.teachers[number].name!r}, which has "
                f"{'one output' if list(own) == [None] else list(own)}",
                "outputs that the member has, or one name for a single output",
                "correct the names, or leave out what the member does not teach",
            )
        return {key: own[key] for key in keys}


def _structured(outputs: dict[Any, Any]) -> Any:
    """Outputs by key as a model gives them: one, a list, or a dict."""
    if set(outputs) == {None}:
        return outputs[None]
    if len({type(key) for key in outputs}) > 1:
        raise problem(
            f"members that teach the outputs {list(outputs)}, None being a single output",
            "names of outputs from all members, or indexes from all, or single outputs",
            "pass outputs=[...], one entry per member: the output that it contributes",
        )
    if set(outputs) == set(range(len(outputs))):
        return [outputs[number] for number in range(len(outputs))]
    return outputs


def _one_each(name: str, values: Any, count: int, default: Any) -> list[Any]:
    if values is None:
        return [default] * count
    # Any collection, a NumPy array too.
    given: Any = values
    if isinstance(values, Sized) and not isinstance(values, str) and len(values) == count:
        return list(given)
    raise problem(
        f"{name}={values!r} for {count} teachers",
        "one entry per teacher",
        f"pass a list of {count} entries, or leave it out",
    )


def _checked_keys(keys: Any) -> list[OutputKey] | None:
    if keys is None:
        return None
    listed = list(keys) if isinstance(keys, list | tuple) else [keys]
    if listed and all(isinstance(key, str | int) for key in listed):
        return listed
    raise problem(
        f"{keys!r} among outputs",
        "a name or index of an output of the student, a list of them, or None",
        "pass for example outputs=['label', ['label', 'box']]",
    )


def as_teacher(teacher: Any) -> Teacher:
    """A teacher of anything that can be one.

    Args:
        teacher: a model of either Keras, a list of them for an `Ensemble`, an object of
            `keras_kd.teachers`, or a function of the inputs.

    Raises:
        ValueError: if it is anything else.
    """
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, list | tuple):
        return Ensemble(teacher)
    if _keras.is_model(teacher):
        return ModelTeacher(teacher)
    # A class can be called as well, but is a teacher that was not made yet.
    if callable(teacher) and not isinstance(teacher, type):
        return Function(teacher)
    kind = type(teacher)
    raise problem(
        f"teacher={_keras.short(teacher)} of type {kind.__module__}.{kind.__qualname__}",
        "a keras.Model or a tf_keras.Model, a list of them, an object of keras_kd.teachers, or "
        "a function of the inputs",
        "make an object of the class, as in keras_kd.teachers.MovingAverage(), and pass it as "
        "`teacher`"
        if isinstance(teacher, type)
        else "load or build the model first and pass it as `teacher`; a model of scikit-learn "
        "teaches through keras_kd.teachers.NumpyFunction, a store through StoredTeacher(path)",
    )
