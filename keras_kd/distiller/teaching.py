"""What the Distillers of both Kerases share: everything but how gradients are applied."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from keras_kd import _keras
from keras_kd._checks import problem
from keras_kd.distiller.compatibility import (
    check_distinct,
    check_given,
    check_inputs,
    check_jit,
    check_losses,
)
from keras_kd.distiller.labels import Labels
from keras_kd.distiller.objective import Objective
from keras_kd.distiller.succession import CompileArguments, successor
from keras_kd.distiller.watch import TeacherWatch
from keras_kd.schedules import Schedule
from keras_kd.taps import Tap, Tapped
from keras_kd.teachers import ModelTeacher, Teacher, as_teacher
from keras_kd.teachers.inputs import Inputs
from keras_kd.teachers.joined import JoinedInputs

_CROSSENTROPIES_OF_PROBABILITIES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
)


class Passes(NamedTuple):
    """The forward passes of a step."""

    teacher: Tapped
    student: Tapped


class Teaching:
    """A student that is taught: for classes that are a model of one of the two Kerases as well.

    The formulas are written in `keras.ops`, which takes the tensors of both. A subclass calls
    `_begin_teaching` in its constructor and says how labels are scored in `_student_loss`.
    """

    def _begin_teaching(
        self, teacher: Any, student: Any, objective: Objective, inputs: Inputs, labels: Labels
    ) -> None:
        """Set the attributes that users see. A missing teacher can be set later."""
        _keras.check_backend()
        self._objective = objective
        self._given_inputs = self._inputs = inputs
        self._labels = labels
        self.student = student
        # Keras would track the layers of taps and teachers as parts of this model.
        self._student_tap = _keras.Untracked(
            Tap(student, objective.student_layer_names, follow_masks=True)
        )
        self._passes = _keras.Untracked(None)
        self._teacher = _keras.Untracked(None)
        self._teacher_watch = None
        self._compile_arguments = _keras.Untracked(None)
        self._supports_jit_alone = self.supports_jit
        if teacher is not None:
            self.teacher = teacher

    @property
    def teacher(self) -> Any:
        """The teacher; `None` after loading a distiller that was saved without it."""
        teacher = self._teacher.value
        return teacher.model if type(teacher) is ModelTeacher else teacher

    @teacher.setter
    def teacher(self, teacher: Any) -> None:
        teacher = as_teacher(teacher)
        for model in teacher.models:
            check_distinct(model, self.student)
        given = self._given_inputs
        inputs = JoinedInputs(given, teacher.key_name) if teacher.brings_outputs else given
        if inputs.are_shared:
            check_inputs(teacher, self.student)
        teacher.tap(self._objective.teacher_layer_names)
        teacher.meet(self.student)
        check_losses(self._objective, teacher, self.student)
        if self._compile_arguments.value is not None:
            check_jit(teacher, self._compile_arguments.value.jit_compile)
        names = [*self._objective.student_layer_names, *teacher.student_layer_names]
        student_tap = Tap(self.student, names, follow_masks=True)
        self._connect(teacher, student_tap)
        self._student_tap.value = student_tap
        self._inputs = inputs
        for model in [*teacher.models, *teacher.learning_models]:
            model.trainable = False
        self._teacher.value = teacher
        # Those that learn are state of the training: part of its weights and backups.
        self._learning_teachers = teacher.learning_models
        self.supports_jit = self._supports_jit_alone and teacher.supports_jit
        self._teacher_watch = TeacherWatch(teacher.name, self._objective.softens_outputs)
        # Steps that are compiled already would go on asking the teacher before this one.
        self._forget_steps()

    def _connect(self, teacher: Teacher, student_tap: Tap) -> None:
        """Make adapters and the losses' own weights, where the models tell their shapes."""
        student = student_tap.shapes()
        said = teacher.shapes(student)
        if student is not None and said is not None:
            self._objective.connect(said, student)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; Keras would make a teacher part of this model before its setter ran."""
        if name == "teacher":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def distillation_losses(self) -> list[Any]:
        """The distillation losses."""
        return self._objective.losses

    @property
    def distillation_loss_weights(self) -> list[Schedule]:
        """One weight per distillation loss."""
        return self._objective.weights

    @property
    def student_loss_weight(self) -> Schedule:
        """The weight of the loss on labels."""
        return self._objective.student_loss_weight

    def with_student(self, student: Any, learning_rate: Any = None) -> Any:
        """A distiller that teaches another student, such as a compressed one, in the same way.

        It has the same teacher, losses and weights, is compiled as this one was, if it was, with an
        optimizer that has no state yet, and its adapters begin with what this one's have learned
        where the features have the same shapes. The teacher then listens to the new student only.

        Args:
            student: a model of either Keras.
            learning_rate: a number or a schedule instead of that of `compile`.

        Raises:
            ValueError: if the losses do not fit the student.

        Example:
            ```python
            distiller.fit(dataset, epochs=10)
            pruned = distiller.with_student(keras_kd.compression.prune(distiller.student, 0.8))
            pruned.fit(dataset, epochs=5)
            ```
        """
        return successor(self, student, learning_rate)

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """The student's outputs."""
        return self.student(self._inputs.of_student(inputs), training=training, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The total loss of a batch, a scalar.

        Args:
            x: inputs of shape `(batch, ...)`.
            y: labels; `None` without a loss on labels.
            y_pred: the student's outputs, where they are known already.
            sample_weight: weights of the examples.
            training: whether the student's forward pass, where one is needed, trains.
        """
        passes = self._passes.value
        if passes is None or passes.student.outputs is not y_pred:
            passes = self._new_passes(x, y_pred, training)
        return self._total_loss(y, sample_weight, passes)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of evaluation: the same losses, and no weight changes.

        Data without what a stored teacher says of them are measured by their labels alone.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self._inputs.reach_teacher(x):
            return self._test_on_labels(x, y, sample_weight)
        passes = self._new_passes(x, None, training=False)
        loss = self._loss_of_passes(passes, x, y, sample_weight, training=False)
        return self._results(loss, x, y, passes.student.outputs, sample_weight)

    def _test_on_labels(self, x: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        if y is None or self._compile_arguments.value.loss is None:
            # Raises, and says how the teacher's part gets into the data.
            self._inputs.of_teacher(x)
        outputs = self._ask_student(x, training=False).outputs
        known, weight = self._labels.for_loss(y, sample_weight, outputs)
        loss = self._student_loss(known, outputs, weight)
        self._track(self.student_loss_tracker, loss, outputs)
        results = self._results(loss, x, y, outputs, sample_weight)
        unknown = {self.distillation_loss_tracker.name, self.total_loss_tracker.name}
        return {name: value for name, value in results.items() if name not in unknown}

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        """A compiled step, followed by a look at what the teacher said.

        Raises:
            ValueError: if the student has nothing to train.
        """
        if self.student.built and not self.student.trainable_weights:
            raise ValueError(
                problem(
                    f"a student {self.student.name!r} without trainable weights",
                    "a student of which at least a part is trained",
                    "set student.trainable = True, and do not build the student of layers of the "
                    "teacher alone, which is frozen",
                )
            )
        if self.train_function is None or force:
            super().make_train_function(force)
            function = self._compiled_step(self.train_step, self.train_function)
            self.train_function = self._watched(function)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Callable[..., Any]:
        """A compiled evaluation step, followed by a look at what the teacher said."""
        if self.test_function is None or force:
            super().make_test_function(force)
            function = self._compiled_step(self.test_step, self.test_function)
            self.test_function = self._watched(function)
        return self.test_function

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """What the student says, see `keras.Model.predict`."""
        with _keras.numpy_errors_in_one_line():
            return super().predict(*args, **kwargs)

    def _forget_steps(self) -> None:
        """Compile steps anew when the next one is due."""
        self.train_function = self.test_function = None

    def _compiled_step(
        self, step: Callable[[Any], Any], by_keras: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        """A function that does a step on an iterator's next batch, as `by_keras` does."""
        return by_keras

    def _begin_compile(self, optimizer: Any, loss: Any, metrics: Any, options: Any) -> None:
        """Check the arguments of `compile` and remember them for `with_student`."""
        self._check_compile(loss, options.get("jit_compile"))
        self._compile_arguments.value = CompileArguments(
            optimizer, loss=loss, metrics=metrics, **options
        )

    def _check_compile(self, loss: Any, jit_compile: Any) -> None:
        if self._teacher.value is not None:
            check_jit(self._teacher.value, jit_compile)
        if loss is None and self._objective.needs_labels:
            raise ValueError(
                problem(
                    f"loss=None with student_loss_weight={self.student_loss_weight}",
                    "a loss on the labels",
                    "pass loss='sparse_categorical_crossentropy' or another one, or build the "
                    "Distiller with student_loss_weight=0 to learn from the teacher alone",
                )
            )
        if (
            isinstance(loss, str)
            and loss in _CROSSENTROPIES_OF_PROBABILITIES
            and _keras.ends_in_logits(self.student)
        ):
            warnings.warn(
                problem(
                    f"loss={loss!r} for the student {self.student.name!r}, which ends in logits",
                    "probabilities: this is how Keras reads the name of a cross-entropy",
                    "pass the loss as an object with from_logits=True, for example "
                    "keras.losses.SparseCategoricalCrossentropy(from_logits=True), or end the "
                    "student in a softmax",
                ),
                stacklevel=4,
            )

    def _measured(self, metrics: Any, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `compile` for metrics: weighted ones where labels can be missing."""
        if self._labels.missing is None or metrics is None:
            return {**options, "metrics": metrics}
        weighted = options.get("weighted_metrics")
        if weighted is not None:
            raise ValueError(
                problem(
                    f"metrics and weighted_metrics with missing_label={self._labels.missing}",
                    "one of them: with missing labels every metric is weighted",
                    "give all of them as metrics",
                )
            )
        return {**options, "weighted_metrics": metrics}

    def _check_labels(self, y: Any) -> None:
        if y is None:
            raise ValueError(
                problem(
                    f"data without labels, with student_loss_weight={self.student_loss_weight}",
                    "labels for the student's own loss",
                    "give pairs (x, y), or build the Distiller with student_loss_weight=0 to learn "
                    "from the teacher alone",
                )
            )

    def _ask_teacher(self, x: Any, student: Tapped) -> Tapped:
        teacher = self._teacher.value
        if teacher is None:
            raise ValueError(
                problem(
                    f"a distiller {self.name!r} that was saved without its teacher",
                    "a teacher to learn from or compare with",
                    "set it first: distiller.teacher = keras.models.load_model('teacher.keras')",
                )
            )
        inputs = self._inputs.of_teacher(x)
        if not self._inputs.are_shared:
            check_given(teacher, inputs)
        said = teacher(inputs, student)
        # What is stored was looked at before.
        return said if teacher.brings_outputs else self._teacher_watch.look(said)

    def _ask_student(self, x: Any, training: bool) -> Tapped:
        self._inputs.check(x)
        return self._student_tap.value(self._inputs.of_student(x), training=training)

    def _new_passes(self, x: Any, y_pred: Any, training: bool) -> Passes:
        if y_pred is None or self._student_tap.value.layers:
            student = self._ask_student(x, training)
        else:
            student = Tapped(y_pred, {})
        return Passes(self._ask_teacher(x, student), student)

    def _loss_of_passes(
        self, passes: Passes, x: Any, y: Any, sample_weight: Any, training: bool
    ) -> Any:
        """Call `compute_loss`.

        What the forward passes gave beside the outputs takes a way of its own, since Keras says
        what the arguments of `compute_loss` are, which users may override.
        """
        self._passes.value = passes
        try:
            return self.compute_loss(x, y, passes.student.outputs, sample_weight, training=training)
        finally:
            self._passes.value = None

    def _student_loss(self, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        """The loss on labels, a replica's share of the mean."""
        raise NotImplementedError

    def _step(self) -> Any:
        """How many updates the student has had; `None` before `compile`."""
        return None if self.optimizer is None else self.optimizer.iterations

    def _total_loss(self, y: Any, sample_weight: Any, passes: Passes) -> Any:
        teacher, student = passes
        objective = self._objective
        labeled = None if y is None else self._labels.for_loss(y, sample_weight, student.outputs)
        if objective.needs_labels:
            self._check_labels(y)
            known, weight = labeled
            student_loss = self._student_loss(known, student.outputs, weight)
        else:
            student_loss = ops.zeros(())
        step = self._step()
        distillation_loss = objective.distillation_loss(
            teacher, student, y, sample_weight, step, labeled
        )
        total = objective.total(student_loss, distillation_loss, step)
        for penalty in self.losses:
            total += ops.sum(ops.cast(penalty, total.dtype)) / _keras.number_of_replicas()
        self._track(self.student_loss_tracker, student_loss, student.outputs)
        marked = self._teacher_watch.mark(distillation_loss)
        self._track(self.distillation_loss_tracker, marked, student.outputs)
        self._track(self.total_loss_tracker, total, student.outputs)
        return total

    def _track(self, tracker: Any, loss: Any, outputs: Any) -> None:
        """Add a replica's share of a loss to a mean over examples."""
        batch_size = ops.shape(keras.tree.flatten(outputs)[0])[0]
        tracker.update_state(loss * _keras.number_of_replicas(), sample_weight=batch_size)

    def _results(
        self, loss: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any
    ) -> dict[str, Any]:
        """Update the metrics and return all of them."""
        self._track(self._loss_tracker, loss, y_pred)
        if y is None:
            # The other metrics want labels.
            return self._tracked_losses()
        known, weight = self._labels.for_metrics(y, sample_weight, y_pred)
        return self.compute_metrics(x, known, y_pred, weight)

    def _trackers(self) -> list[Any]:
        """The means of the losses."""
        return [
            self._loss_tracker,
            self.student_loss_tracker,
            self.distillation_loss_tracker,
            self.total_loss_tracker,
        ]

    def _tracked_losses(self) -> dict[str, Any]:
        return {tracker.name: tracker.result() for tracker in self._trackers()}

    def _scheduled_values(self) -> dict[str, Any]:
        """The current values of schedules, for the logs of a training step."""
        return self._objective.scheduled_values(self._step())

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(iterator: Any) -> Any:
            with _keras.numpy_errors_in_one_line():
                try:
                    logs = function(iterator)
                except (StopIteration, tf.errors.OpError):
                    # The step is sound: the data are not, or at their end.
                    raise
                except BaseException:
                    # TensorFlow cannot go on with one whose first trace failed or was interrupted.
                    self._forget_steps()
                    raise
            self._teacher_watch.read(logs.get(self.distillation_loss_tracker.name))
            self._objective.check_scheduled_values(logs)
            # A student that had no shapes before has them now, and can be saved.
            if self.student.built and not self.built:
                self.built = True
            return logs

        return step
