"""Teacher, student, losses and inputs of a Distiller; each can be replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from keras_kd import _backends, _graphs, _keras
from keras_kd._checks import problem
from keras_kd.distiller.compatibility import (
    check_distinct,
    check_flavour,
    check_inputs,
    check_jit,
    check_losses,
    check_order,
)
from keras_kd.distiller.default_losses import choose_losses
from keras_kd.distiller.labels import Labels
from keras_kd.distiller.objective import Objective
from keras_kd.distiller.own_loss import check_label_loss, has_own_loss, overrides, warn_of_steps
from keras_kd.distiller.succession import carry_over, fresh_losses
from keras_kd.distiller.watch import ProbabilityWatch, TeacherWatch
from keras_kd.schedules import Schedule
from keras_kd.taps import Tap
from keras_kd.teachers import Teacher, as_teacher
from keras_kd.teachers.inputs import Inputs, ModelInputs
from keras_kd.teachers.joined import JoinedInputs

# What can be set after the constructor, past Keras, which would look for layers in it first.
_SET_BY_PROPERTIES = (
    "teacher",
    "distillation_losses",
    "distillation_loss_weights",
    "student_loss_weight",
    "teacher_inputs",
    "student_inputs",
    "missing_label",
)


class Parts(NamedTuple):
    """Teacher, student, losses and inputs; each can be replaced by another one."""

    teacher: Teacher | None
    student: Any
    objective: Objective
    inputs: Inputs


# Every class made of this one is a model of either Keras, too.
_OfModel = keras.Model if TYPE_CHECKING else object


class Assembly(_OfModel):
    """What a Distiller is made of, and what follows when a part is replaced by another one.

    A part is replaced with everything that depends on it, or, if it does not fit, not at all.
    """

    def _begin_teaching(
        self, teacher: Any, student: Any, objective: Objective, inputs: Inputs, labels: Labels
    ) -> None:
        """Set the attributes that users see. A missing teacher can be set later."""
        _backends.check_backend()
        check_order(teacher, student)
        self._labels = labels
        # Keras would track the layers of taps and teachers as parts of this model.
        self._passes = _keras.Untracked(None)
        self._parts = _keras.Untracked(Parts(None, None, objective, inputs))
        self._met = _keras.Untracked((None, None))
        self._student_tap = _keras.Untracked(None)
        self._teacher_watch: Any = None
        self._student_watch: Any = None
        self._compile_arguments = _keras.Untracked(None)
        self._class_weight = _keras.Untracked(None)
        self._supports_jit_alone = self.supports_jit
        teacher = None if teacher is None else as_teacher(teacher)
        self._put(Parts(teacher, student, objective, inputs))
        warn_of_steps(student)

    @property
    def _objective(self) -> Objective:
        return self._parts.value.objective

    @property
    def teacher(self) -> Teacher | None:
        """The teacher as a `keras_kd.teachers.Teacher`, whose `models` are those that it runs.

        A model that was given is the `model` of a `ModelTeacher`. `None` after loading a distiller
        that was saved without its teacher.
        """
        return self._parts.value.teacher

    @teacher.setter
    def teacher(self, teacher: Any) -> None:
        self._take(teacher=as_teacher(teacher))

    def _take_student(self, student: Any) -> None:
        """Teach another student from now on; `student` is a plain attribute, as Keras saves it.

        A compiled distiller is compiled anew, with an optimizer without state where the one before
        has begun: its state belongs to the weights of the student before.

        Raises:
            ValueError: if the student is no model of this Keras, or does not fit the teacher or the
                losses; the student before is then still there.
        """
        old = self._objective
        if student is self.student:
            return
        check_flavour(self, _keras.check_model("student", student))
        if self.teacher is None and old.bridge_weights:
            raise problem(
                "another student for a distiller without a teacher whose adapters were trained",
                "a teacher, by whose shapes new adapters are made",
                "set distiller.teacher first",
            )
        losses, weights = old.given_losses
        objective = Objective(
            None if losses is None else fresh_losses(losses), weights, old.student_loss_weight
        )
        self._take(student=student, objective=objective)
        if losses is not None:
            carry_over(old.bridges, objective.bridges)
        warn_of_steps(student)

    def _take(self, **changed: Any) -> None:
        """Replace some of the `Parts`, with everything that follows, or none of them."""
        old = self._parts.value
        new = old._replace(**changed)
        learning = [] if old.teacher is None else old.teacher.learning_models
        learned = [model.get_weights() for model in learning]
        try:
            self._put(new)
            self._compile_for_other_weights(old)
        except BaseException:
            self._put(old)
            if old.teacher is not None:
                for model, weights in zip(old.teacher.learning_models, learned, strict=True):
                    model.set_weights(weights)
            raise

    def _compile_for_other_weights(self, old: Parts) -> None:
        """Compile anew, where an optimizer would get weights that are new to it."""
        arguments, new = self._compile_arguments.value, self._parts.value
        known = [id(weight) for weight in old.objective.bridge_weights]
        is_known = known == [id(weight) for weight in new.objective.bridge_weights]
        if arguments is not None and not (new.student is old.student and is_known):
            has_begun = getattr(self.optimizer, "built", True)
            self.compile(**(arguments.fresh() if has_begun else arguments.given()))

    def _put(self, parts: Parts) -> None:
        """Check that parts fit each other, and work with them.

        Raises:
            ValueError: if they do not.
        """
        teacher, student, objective, given = parts
        names = objective.student_layer_names
        inputs = given
        if teacher is not None:
            for model in teacher.models:
                check_distinct(model, student)
            inputs = given.between(teacher.input_names, _graphs.input_names(student))
            if teacher.brings_outputs:
                inputs = JoinedInputs(inputs, teacher.key_name)
            if inputs.are_shared:
                check_inputs(teacher, student)
            teacher.tap(objective.teacher_layer_names)
            if self._met.value[0] is not teacher or self._met.value[1] is not student:
                # Not again, since it can make a teacher begin anew.
                teacher.meet(student)
                self._met.value = (teacher, student)
            check_losses(objective, teacher, student)
            if self._compile_arguments.value is not None:
                check_jit(teacher, self._compile_arguments.value.jit_compile)
            names = [*names, *teacher.student_layer_names]
        student_tap = Tap(student, names, follow_masks=True)
        if teacher is not None:
            connect(objective, teacher, student_tap)
            for model in [*teacher.models, *teacher.learning_models]:
                model.trainable = False
            # Those that learn are state of the training: part of its weights and backups.
            self._replace("_learning_teachers", teacher.learning_models)
            # Elsewhere Python runs within compiled steps, or none is compiled.
            compiles = teacher.supports_jit or not _backends.is_tensorflow()
            self.supports_jit = self._supports_jit_alone and compiles
            self._teacher_watch = TeacherWatch(teacher.name)
            self._student_watch = ProbabilityWatch("student", student.name)
        before = self._parts.value.student
        if student is not before:
            self._replace("student", student)
            self.built = student.built
            if before is not None:
                self._follow_precision(before, student)
        self._parts.value = parts
        self._inputs = inputs
        self._student_tap.value = student_tap
        self._terms = _keras.Untracked(objective.terms)
        self._hold_bridges()
        # Steps that are compiled already would still use the old parts.
        self._forget_steps()

    def _settle_bridges(self) -> None:
        """Work with other losses of the same objective, chosen where none were given."""
        objective, teacher = self._objective, self.teacher
        if teacher is not None:
            connect(objective, teacher, self._student_tap.value)
        self._hold_bridges()
        self._terms.value = objective.terms

    def _replace(self, name: str, value: Any) -> None:
        """Set an attribute that holds models or layers in the place of what it held."""
        with _keras.replacing(self, vars(self).get(name)):
            super().__setattr__(name, value)

    def _hold_bridges(self) -> None:
        """Make what trains beside the student a part of this model."""
        raise NotImplementedError

    def _follow_precision(self, before: Any, student: Any) -> None:
        """Scale the loss of another student if its gradients can underflow, see `__init__`."""
        is_half = _keras.computes_in_float16(student)
        if is_half != _keras.computes_in_float16(before):
            self._set_policy("mixed_float16" if is_half else keras.config.dtype_policy().name)

    def _set_policy(self, name: str) -> None:
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; Keras would make a teacher part of this model before its setter ran."""
        if name in _SET_BY_PROPERTIES:
            object.__setattr__(self, name, value)
        elif name == "student" and "student" in vars(self):
            self._take_student(value)
        else:
            super().__setattr__(name, value)

    @property
    def distillation_losses(self) -> list[Any]:
        """The distillation losses; others, as many, can be set, and then adapters begin anew."""
        return self._objective.losses

    @distillation_losses.setter
    def distillation_losses(self, losses: Any) -> None:
        old = self._objective
        objective = Objective(losses, self._terms.value[1], old.student_loss_weight)
        self._take(objective=objective)
        if self._compile_arguments.value is not None:
            self._choose_losses(self._compile_arguments.value.loss)
        for bridge in old.bridges:
            same = [
                other for other in objective.bridges if other.loss.original is bridge.loss.original
            ]
            carry_over([bridge] * len(same), same)

    @property
    def distillation_loss_weights(self) -> list[Schedule]:
        """One weight per distillation loss; others can be set."""
        return self._objective.weights

    @distillation_loss_weights.setter
    def distillation_loss_weights(self, weights: Any) -> None:
        self._objective.set_weights(weights)
        self._terms.value = self._objective.terms
        self._forget_steps()

    @property
    def student_loss_weight(self) -> Schedule:
        """The weight of the loss on labels; another one can be set."""
        return self._objective.student_loss_weight

    @student_loss_weight.setter
    def student_loss_weight(self, weight: Schedule) -> None:
        before = self.student_loss_weight
        self._objective.set_student_loss_weight(weight)
        if self._compile_arguments.value is not None:
            try:
                self._check_label_loss(self._compile_arguments.value.loss)
            except ValueError:
                self._objective.set_student_loss_weight(before)
                raise
        self._forget_steps()

    @property
    def teacher_inputs(self) -> ModelInputs:
        """The teacher's inputs, see the constructor."""
        return self._parts.value.inputs.teacher_inputs

    @teacher_inputs.setter
    def teacher_inputs(self, teacher_inputs: ModelInputs) -> None:
        self._take(inputs=Inputs(teacher_inputs, self.student_inputs))

    @property
    def student_inputs(self) -> ModelInputs:
        """The student's inputs, see the constructor."""
        return self._parts.value.inputs.student_inputs

    @student_inputs.setter
    def student_inputs(self, student_inputs: ModelInputs) -> None:
        self._take(inputs=Inputs(self.teacher_inputs, student_inputs))

    @property
    def missing_label(self) -> int | None:
        """The integer that represents a label that is not known."""
        return self._labels.missing

    @missing_label.setter
    def missing_label(self, missing_label: int | None) -> None:
        raise problem(
            f"distiller.missing_label = {missing_label!r}",
            "missing_label as an argument of the constructor, since compile depends on it",
            "build a new keras_kd.Distiller(distiller.teacher, distiller.student, "
            f"missing_label={missing_label!r})",
        )

    def _settle_terms(self) -> None:
        """Adopt changes that were made in the lists of losses and weights themselves."""
        losses, weights = self._objective.terms
        known_losses, known_weights = self._terms.value
        if weights != known_weights:
            self._terms.value = (known_losses, weights)
            if len(weights) == len(known_weights):
                self.distillation_loss_weights = weights
        if list(map(id, losses)) != list(map(id, known_losses)):
            self.distillation_losses = losses

    def _forget_steps(self) -> None:
        """Compile steps anew when the next one is due."""
        self.train_function = self.test_function = None

    def _choose_losses(self, loss: Any) -> None:
        """Choose the distillation losses by the loss on labels, where none were given."""
        objective, teacher = self._objective, self.teacher
        if not objective.is_default:
            return
        models = [self.student, *([] if teacher is None else teacher.models)]
        if objective.choose(choose_losses(self.student, loss, models)):
            self._settle_bridges()

    def _check_label_loss(self, loss: Any) -> None:
        """Check that there is a loss on labels, if it counts."""
        check_label_loss(self.student, loss, self._objective, self._labels)

    @property
    def _uses_own_loss(self) -> bool:
        """Whether the loss on labels is the student's own."""
        arguments = self._compile_arguments.value
        is_left_to_student = arguments is not None and arguments.loss is None
        return is_left_to_student and self._objective.needs_labels and has_own_loss(self.student)

    @property
    def _computes_own_loss(self) -> bool:
        """Whether the loss on labels is a `compute_loss` that the student's user wrote."""
        return self._uses_own_loss and overrides(self.student, "compute_loss")


def connect(objective: Objective, teacher: Teacher, student_tap: Tap) -> None:
    """Make adapters and the losses' own weights, where the models' shapes are known."""
    student = student_tap.shapes()
    of_teacher = teacher.shapes(student)
    if student is not None and of_teacher is not None:
        objective.connect(of_teacher, student)
