"""Checks that teacher and student fit each other, before any training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_kd import _backends, _graphs, _keras
from keras_kd._checks import problem, shapes_fit, three_parts
from keras_kd.distiller.objective import Objective
from keras_kd.teachers import ModelTeacher, Teacher

_OLD_ARGUMENTS = ("student_loss_fn", "distillation_loss_fn", "alpha", "temperature")


def check_distinct(teacher: Any, student: Any) -> None:
    """Check that the student is not the teacher, which is frozen, and warn of shared weights.

    Raises:
        ValueError: if both are the same object.
    """
    if teacher is student:
        raise problem(
            f"the model {student.name!r} as teacher and as student",
            "two models, since the teacher is frozen",
            "copy it first: teacher = keras.models.clone_model(student), then "
            "teacher.set_weights(student.get_weights())",
        )
    shared = _shared_layers(teacher, student)
    if shared:
        warnings.warn(
            three_parts(
                f"the student {student.name!r} with layers of the teacher {teacher.name!r}, which "
                f"is frozen from now on, so that they do not train: {', '.join(shared)}",
                "a student with its own layers",
                "copy it first: copy = keras.models.clone_model(student), "
                "copy.set_weights(student.get_weights()) and copy.trainable = True; or set "
                "teacher.trainable = False before, if these layers are not to train",
            ),
            stacklevel=5,
        )


def check_order(teacher: Any, student: Any) -> None:
    """Check that the teacher comes first, as far as the models' names show.

    Raises:
        ValueError: if the names show the opposite.
    """
    names = [str(getattr(model, "name", "")) for model in (teacher, student)]
    if "student" in names[0].lower() and "teacher" in names[1].lower():
        raise problem(
            f"the model {names[0]!r} as teacher and {names[1]!r} as student",
            "the teacher first",
            "write keras_kd.Distiller(teacher, student), or give the models other names",
        )


def refuse_old_arguments(given: Mapping[str, Any]) -> None:
    """Refuse arguments of the Distiller in the examples of older versions of Keras.

    Args:
        given: further arguments of the constructor or of `compile`.

    Raises:
        TypeError: if there are any; the message contains the replacement.
    """
    old = [name for name in _OLD_ARGUMENTS if name in given]
    if not old:
        return
    written = {name: given[name] for name in ("temperature", "alpha") if name in given}
    temperature, alpha = written.get("temperature", 4.0), written.get("alpha", 0.5)
    raise problem(
        f"{', '.join(old)}, arguments of the Distiller of older Keras examples",
        "the temperature in a distillation loss, the weight of the loss on labels in the "
        "constructor, and that loss in compile",
        "build keras_kd.Distiller(teacher, student, keras_kd.losses.SoftTargets(temperature="
        f"{temperature!r}), student_loss_weight={alpha!r}), the teacher first, and call "
        "compile(optimizer, loss=..., metrics=...) with what was student_loss_fn as the loss",
        kind=TypeError,
    )


def check_flavour(distiller: Any, student: Any) -> None:
    """Check that a student is a model of the Keras of the distiller that is to teach it.

    Raises:
        ValueError: if it is one of the other.
    """
    if _keras.is_tf_keras_model(student) == _keras.is_tf_keras_model(distiller):
        return
    kinds = {True: "tf_keras", False: "Keras 3"}
    raise problem(
        f"a {kinds[_keras.is_tf_keras_model(student)]} student for the distiller "
        f"{distiller.name!r}, a {kinds[_keras.is_tf_keras_model(distiller)]} model",
        "a student of the same Keras as the distiller",
        "let distiller.with_student(student) make a distiller of the other kind, or build a "
        "new keras_kd.Distiller",
    )


def check_inputs(teacher: Teacher, student: Any) -> None:
    """Check that both models take the same inputs, as far as the models define their inputs.

    Raises:
        ValueError: if number, names or shapes differ.
    """
    teacher_shapes = teacher.input_shapes
    student_shapes = _graphs.input_shapes(student)
    if teacher_shapes is None or student_shapes is None:
        return
    if _all_fit(teacher_shapes, student_shapes):
        return
    raise problem(
        f"a teacher for inputs of shape {_written(teacher_shapes)} and a student for "
        f"{_written(student_shapes)}",
        "the same inputs for both",
        "give both the same keras.Input, put a Resizing or Reshape layer in front of one, or "
        "pass teacher_inputs and student_inputs, which divide the inputs between both",
    )


def check_given(teacher: Teacher, inputs: Any) -> None:
    """Check that what `teacher_inputs` gives is what the teacher takes, as far as that is known.

    Raises:
        ValueError: if number or shapes differ.
    """
    taken = teacher.input_shapes
    given = [tuple(tensor.shape) for tensor in keras.tree.flatten(inputs)]
    if taken is None or _all_fit(taken, given):
        return
    raise problem(
        f"teacher_inputs of shape {_written(given)}",
        f"what the teacher {teacher.name!r} takes: {_written(taken)}",
        "correct the function or the names given as teacher_inputs",
    )


def check_jit(teacher: Teacher, jit_compile: Any) -> None:
    """Check that XLA can compile a step with this teacher, if it is to.

    Raises:
        ValueError: if it cannot.
    """
    if jit_compile is True and not teacher.supports_jit and _backends.is_tensorflow():
        raise problem(
            f"jit_compile=True with the teacher {teacher.name!r}, which runs outside of TensorFlow",
            "a step without XLA",
            "leave out jit_compile",
        )


def check_losses(objective: Objective, teacher: Teacher, student: Any) -> None:
    """Let the losses look at the models, as Keras' own Distiller does.

    Raises:
        ValueError: if a loss refuses them.
    """
    if not isinstance(teacher, ModelTeacher):
        return
    for loss in objective.losses:
        # Keras' own check does not find layers wrapped by TF-MOT; taps look names up themselves.
        if not isinstance(loss, keras.distillation.FeatureDistillation):
            loss.validate_model_compatibility(teacher.model, student)


def _shared_layers(teacher: Any, student: Any) -> list[str]:
    """The student's layers, of those that train, whose weights the teacher trains as well."""
    own = {id(weight) for weight in teacher.trainable_weights}
    parts = student._flatten_layers(include_self=False)
    return [
        _keras.original_name(layer.name)
        for layer in parts
        if not _keras.is_model(layer)
        and any(id(weight) in own for weight in layer.trainable_weights)
    ]


def _all_fit(first: list[tuple], second: list[tuple]) -> bool:
    return len(first) == len(second) and all(map(shapes_fit, first, second))


def _written(shapes: list[tuple]) -> str:
    return ", ".join(str(shape) for shape in shapes)
