"""The forward passes and the total loss of a Distiller, alike for Keras 3 and tf_keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
from keras import ops

from keras_kd import _backends, _keras, _logits, _replicas
from keras_kd._checks import problem
from keras_kd.distiller.compatibility import check_given, check_jit, refuse_old_arguments
from keras_kd.distiller.labels import Labels
from keras_kd.distiller.logs import with_logs
from keras_kd.distiller.measuring import Measuring, batch_size, compare
from keras_kd.distiller.objective import Objective
from keras_kd.distiller.own_loss import call_compute_loss, own_loss, warn_of_label_loss
from keras_kd.distiller.succession import CompileArguments, successor
from keras_kd.schedules import Schedule
from keras_kd.taps import Tapped
from keras_kd.teachers.inputs import Inputs, ModelInputs


class Passes(NamedTuple):
    """The forward passes of a step.

    Attributes:
        teacher: the teacher's outputs and features.
        student: the student's outputs and features.
        added: what the student's layers have added with `add_loss`, where other replicas run before
            it is read.
    """

    teacher: Tapped
    student: Tapped
    added: Sequence[Any] = ()


class Teaching(Measuring):
    """Training of a student, for classes that are also a model of Keras 3 or of tf_keras.

    The formulas are written in `keras.ops`, which takes the tensors of both. The steps are in
    `steps.py` and in a module for each backend (`tensorflow_step.py`, `jax_step.py`,
    `torch_step.py`); a class for each Keras has `_begin_model`, `_student_loss` and
    `_mean_of_keras`.
    Arguments and errors are those of `keras_kd.Distiller`.
    """

    # `keras_kd.Distiller`, which gives the class that fits a student; it is made after this one.
    _entry: ClassVar[type]

    def __init__(
        self,
        teacher: Any,
        student: Any,
        distillation_losses: Any = None,
        distillation_loss_weights: Sequence[Schedule] | Schedule | None = None,
        student_loss_weight: Schedule = 0.5,
        name: str = "distiller",
        *,
        teacher_inputs: ModelInputs = None,
        student_inputs: ModelInputs = None,
        missing_label: int | None = None,
        save_teacher: bool = True,
        gather_batches: bool = True,
        **kwargs: Any,
    ) -> None:
        refuse_old_arguments(kwargs)
        _keras.check_model("student", student)
        if save_teacher and teacher is None:
            _keras.check_model("teacher", teacher)
        # Keras scales the loss, without which float16 gradients underflow, by the model's policy.
        kwargs.setdefault("dtype", "mixed_float16" if _keras.computes_in_float16(student) else None)
        super().__init__(name=name, **kwargs)
        self._begin_model()
        self._begin_measuring()
        self.save_teacher = save_teacher
        self.gather_batches = gather_batches
        self._begin_teaching(
            teacher,
            student,
            Objective(distillation_losses, distillation_loss_weights, student_loss_weight),
            Inputs(teacher_inputs, student_inputs),
            Labels(missing_label),
        )

    def _begin_model(self) -> None:
        """Set what a model of this Keras needs: the means of the losses among it."""
        raise NotImplementedError

    def with_student(self, student: Any, learning_rate: Any = None) -> Any:
        """A distiller that teaches another student, such as a compressed one, in the same way.

        It has the same teacher, losses and weights. If this one was compiled, it is compiled in the
        same way, with an optimizer without state. Its adapters begin with the weights of this one's
        where the features have the same shapes. The teacher then belongs to the new student.

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
        # A user's subclass is for one Keras.
        is_own = type(self).__module__.partition(".")[0] == "keras_kd"
        return successor(self, student, learning_rate, self._entry if is_own else type(self))

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
        return self._total_loss(x, y, sample_weight, passes, training)

    def _loss_of_batch(
        self, x: Any, y: Any, sample_weight: Any, without_gradients: Callable[[], Any]
    ) -> tuple[Any, Any, Any]:
        """One forward pass of each model in a training step.

        Args:
            x: inputs.
            y: labels.
            sample_weight: weights of the examples.
            without_gradients: makes a context in which nothing is kept for gradients.

        Returns:
            The total loss, the student's outputs, and the weights that examples have.
        """
        student = self._run_student(x, training=True)
        added = self._taken_losses()
        # So that no activation of the teacher is kept for gradients.
        with without_gradients():
            passes = Passes(self._run_teacher(x, student), student, added)
        sample_weight = self._weighed(y, sample_weight, student.outputs)
        loss = self._loss_of_passes(passes, x, y, sample_weight, training=True)
        return loss, student.outputs, sample_weight

    def _test_batch(self, data: Any) -> dict[str, Any]:
        """The logs of a batch in evaluation: the same losses, and no weight changes.

        Data without stored outputs are measured by their labels alone.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self._inputs.reach_teacher(x):
            return self._test_on_labels(x, y, sample_weight)
        passes = self._new_passes(x, None, training=False)
        loss = self._loss_of_passes(passes, x, y, sample_weight, training=False)
        return self._results(loss, x, y, passes.student.outputs, sample_weight)

    def _scaled(self, loss: Any) -> Any:
        """The loss as gradients are taken of it."""
        return loss

    def _test_on_labels(self, x: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        has_loss = self._uses_own_loss or self._compile_arguments.value.loss is not None
        if not has_loss or (y is None and not self._uses_own_loss):
            # Raises an error that explains how the teacher's part gets into the data.
            self._inputs.of_teacher(x)
        outputs = self._run_student(x, training=False).outputs
        labeled = self._labeled(y, sample_weight, outputs)
        loss = self._label_loss(x, *labeled, outputs, training=False)
        self._track(self.student_loss_tracker, loss, outputs)
        results = self._results(loss, x, y, outputs, sample_weight)
        unknown = {self.distillation_loss_tracker.name, self.total_loss_tracker.name}
        unknown |= set(self._term_means.value or ())
        if self._agreement.value is not None:
            unknown.add(self._agreement.value.name)
        return {name: value for name, value in results.items() if name not in unknown}

    def fit(self, *args: Any, class_weight: Any = None, **kwargs: Any) -> Any:
        """Train; see `keras.Model.fit`. `class_weight` gives missing labels no class."""
        if "callbacks" in kwargs:
            kwargs["callbacks"] = with_logs(kwargs["callbacks"])
        return super().fit(*args, **self._for_keras(class_weight), **kwargs)

    def train_on_batch(self, *args: Any, class_weight: Any = None, **kwargs: Any) -> Any:
        """Train on one batch; see `keras.Model.train_on_batch`."""
        return super().train_on_batch(*args, **self._for_keras(class_weight), **kwargs)

    def _for_keras(self, class_weight: Mapping[int, float] | None) -> dict[str, Any]:
        """Weigh classes in the step where labels can be missing, which Keras would look up, too.

        Returns what is left to Keras as arguments.
        """
        in_step = None if self._labels.missing is None else class_weight
        if in_step != self._class_weight.value:
            self._class_weight.value = in_step
            self._forget_steps()
        is_left = class_weight is not None and in_step is None
        return {"class_weight": class_weight} if is_left else {}

    def _weighed(self, y: Any, sample_weight: Any, outputs: Any) -> Any:
        """The weights of examples in a training step."""
        class_weight = self._class_weight.value
        if not class_weight or y is None:
            return sample_weight
        return self._labels.weighed(y, sample_weight, outputs, class_weight)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Export the student; see `keras.Model.export`."""
        return self.student.export(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """The student's outputs, see `keras.Model.predict`."""
        with _backends.numpy_errors_in_one_line():
            return super().predict(*args, **kwargs)

    def _begin_compile(self, optimizer: Any, loss: Any, metrics: Any, options: Any) -> None:
        """Check the arguments of `compile` and remember them for `with_student`."""
        refuse_old_arguments(options)
        if self.teacher is not None:
            check_jit(self.teacher, options.get("jit_compile"))
        self._check_label_loss(loss)
        warn_of_label_loss(self.student, loss)
        self._choose_losses(loss)
        self._compile_arguments.value = CompileArguments(
            optimizer, loss=loss, metrics=metrics, **options
        )

    def _check_labels(self, y: Any) -> None:
        if y is None:
            raise problem(
                f"data without labels, with student_loss_weight={self.student_loss_weight}",
                "labels for the student's own loss",
                "give pairs (x, y), or build the Distiller with student_loss_weight=0 to learn "
                "from the teacher alone",
            )

    def _run_teacher(self, x: Any, student: Tapped) -> Tapped:
        teacher = self.teacher
        if teacher is None:
            raise problem(
                f"a distiller {self.name!r} that was saved without its teacher",
                "a teacher to learn from or compare with",
                "set it first: distiller.teacher = keras.models.load_model('teacher.keras')",
            )
        inputs = self._inputs.of_teacher(x)
        if not self._inputs.are_shared:
            check_given(teacher, inputs)
        with _logits.noting() as remember:
            taught = teacher(inputs, student)
            remember(taught.outputs)
        softened = self._objective.softened("teacher", taught.outputs)
        if teacher.brings_outputs:
            # What is stored was finite when it was stored.
            self._teacher_watch.probabilities.look(softened)
            return taught
        return self._teacher_watch.look(taught, softened)

    def _run_student(self, x: Any, training: bool) -> Tapped:
        if training:
            # Before the student, to which such a batch looks like one that is for it alone.
            self._inputs.check(x)
        with _logits.noting() as remember:
            student = self._student_tap.value(self._inputs.of_student(x), training=training)
            remember(student.outputs)
        return student

    def _new_passes(self, x: Any, y_pred: Any, training: bool) -> Passes:
        if y_pred is None or self._student_tap.value.layers:
            student = self._run_student(x, training)
        else:
            student = Tapped(y_pred, {})
        added = self._taken_losses()
        return Passes(self._run_teacher(x, student), student, added)

    def _taken_losses(self) -> Sequence[Any]:
        """What layers have added in the last pass, where another one may begin before the loss."""
        return []

    def _loss_of_passes(
        self, passes: Passes, x: Any, y: Any, sample_weight: Any, training: bool
    ) -> Any:
        """Call `compute_loss`.

        The features of the forward passes are handed over in an attribute, since Keras fixes the
        arguments of `compute_loss`, which users may override.
        """
        self._passes.value = passes
        try:
            return call_compute_loss(
                self.compute_loss, x, y, passes.student.outputs, sample_weight, training
            )
        finally:
            self._passes.value = None

    def _student_loss(self, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        """The loss on labels, a replica's share of the mean."""
        raise NotImplementedError

    def _step(self) -> Any:
        """How many updates the student has had; `None` before `compile`."""
        return None if self.optimizer is None else self.optimizer.iterations

    def _labeled(self, y: Any, sample_weight: Any, outputs: Any) -> tuple[Any, Any]:
        """Labels and weights that leave out examples without a label."""
        return (y, sample_weight) if y is None else self._labels.for_loss(y, sample_weight, outputs)

    def _label_loss(self, x: Any, y: Any, sample_weight: Any, outputs: Any, training: bool) -> Any:
        """The loss on what `_labeled` gave, the student's own or that of `compile`."""
        if self._uses_own_loss:
            inputs = self._inputs.of_student(x)
            return own_loss(self.student, inputs, y, outputs, sample_weight, training)
        self._check_labels(y)
        return self._student_loss(y, outputs, sample_weight)

    def _total_loss(
        self, x: Any, y: Any, sample_weight: Any, passes: Passes, training: bool
    ) -> Any:
        teacher, student, added = passes
        objective = self._objective
        self._student_watch.look(objective.softened("student", student.outputs))
        labeled = self._labeled(y, sample_weight, student.outputs)
        if objective.needs_labels:
            student_loss = self._label_loss(x, *labeled, student.outputs, training)
        else:
            student_loss = ops.zeros(())
        step = self._step()
        means = self._term_means.value

        def see(name: str, value: Any) -> None:
            self._track(means[f"{name}_loss"], value, student.outputs)

        distillation_loss = objective.distillation_loss(
            teacher,
            student,
            y,
            sample_weight,
            step,
            None if y is None else labeled,
            None if means is None else see,
            self.gather_batches,
        )
        if self._agreement.value is not None:
            compare(self._agreement.value, teacher.outputs, student.outputs)
        total = objective.total(student_loss, distillation_loss, step)
        for penalty in [*added, *self.losses]:
            penalty = ops.sum(ops.cast(penalty, total.dtype))
            if _replicas.number() > 1:
                # Keras' own are constants or means over a replica's examples.
                penalty = _replicas.mean_of_examples(penalty, batch_size(student.outputs))
            total += penalty
        self._track(self.student_loss_tracker, student_loss, student.outputs)
        marked = self._teacher_watch.mark(distillation_loss)
        self._track(self.distillation_loss_tracker, marked, student.outputs)
        self._track(self.total_loss_tracker, total, student.outputs)
        return total

    def _scheduled_values(self) -> dict[str, Any]:
        """The current values of schedules, for the logs of a training step."""
        return self._objective.scheduled_values(self._step())
