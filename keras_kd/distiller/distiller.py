"""The Distiller for Keras 3 students."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import keras

from keras_kd import _backends, _keras
from keras_kd._checks import problem
from keras_kd._fitting import FitTaken, call_fit
from keras_kd.distiller.assembly import connect
from keras_kd.distiller.logs import with_logs
from keras_kd.distiller.replicas import label_loss
from keras_kd.distiller.teaching import Teaching
from keras_kd.schedules import deserialize as deserialize_schedule
from keras_kd.schedules import serialize as serialize_schedule

# The steps of the backend; a process has one.
if TYPE_CHECKING or keras.backend.backend() == _backends.TENSORFLOW:
    from keras_kd.distiller.tensorflow_step import Keras3Teaching as _BackendTeaching
elif keras.backend.backend() == _backends.JAX:
    from keras_kd.distiller.jax_step import JaxTeaching as _BackendTeaching
else:
    from keras_kd.distiller.torch_step import TorchTeaching as _BackendTeaching


class _EitherFlavour(type(keras.Model)):
    """`isinstance(distiller, keras_kd.Distiller)` also holds for the class of tf_keras students."""

    def __instancecheck__(self, instance: Any) -> bool:
        return super().__instancecheck__(instance) or (
            self is Distiller and isinstance(instance, Teaching)
        )


@keras.saving.register_keras_serializable(package="keras_kd")
class Distiller(_BackendTeaching, FitTaken, keras.Model, metaclass=_EitherFlavour):
    """Trains a student on labels and on the outputs of a teacher.

    A `keras.Model`: `compile`, `fit`, `evaluate`, `predict`, callbacks and saving are Keras' own.
    It takes the place of `keras.distillation.Distiller`: same arguments, attributes and logs.

        total_loss = w * student_loss + (1 - w) * sum_i weight_i * distillation_loss_i

    plus the student's regularization losses and what its layers add with `add_loss`. Each step
    runs each model forward once, the teacher as in inference. Sample weights, class weights and
    masks count in both kinds of loss; where Keras drops a mask (behind attention, or `x + y`), the
    loss on labels and the metrics count padding as in `student.fit`, and the distillation losses do
    not.

    With a `tf_keras` student (one that TF-MOT prunes or trains quantization-aware) the same call
    gives a `tf_keras.Model` with the same behaviour, a
    `keras_kd.distiller.TfKerasDistiller`. `isinstance(distiller,
    keras_kd.Distiller)` holds for both.

    Args:
        teacher: a trained model of either Keras, a list of models (see
            `keras_kd.teachers.Ensemble`), another teacher of `keras_kd.teachers`, or a function of
            the inputs. Models are frozen (`trainable = False`, as in Keras' Distiller; set it back
            afterwards if you train one further), never changed, and no part of the distiller's
            weights.
        student: the model to train, of either Keras. With a softmax or sigmoid at the end or
            without.
        distillation_losses: one `keras.distillation.DistillationLoss` or a list of them; the name
            of a loss represents it (`"soft_targets"`, see `keras_kd.losses.get`). `None` for
            `keras_kd.losses.SoftTargets(temperature=4.0)`, or for `keras_kd.losses.LogitsMSE` on
            outputs that are numbers: those that `compile` gets a loss of regression for, such as
            `"mse"`, and that end in neither a softmax nor a sigmoid.
        distillation_loss_weights: one weight per loss; `None` for 1 each. A weight is a number, a
            `keras.optimizers.schedules.LearningRateSchedule` or a function of the step, which is
            the number of updates since `compile`. The logs of `fit` show the values of schedules.
        student_loss_weight: w, from 0 (only the teacher) to 1 (only the labels), in the same forms.
        teacher_inputs: the teacher's inputs, where they differ from the student's: a function
            of the inputs (larger images, for example); an entry of the inputs (a key of a dict, an
            index of a list or tuple) or a list of entries; or a dict from the names of the
            teacher's inputs to entries, as in `{"ids": "input_ids"}`. Validation data without
            these entries are measured by their labels alone.
        student_inputs: the same for the student. `None`: the entries that `teacher_inputs` does not
            name. An entry that both models see is named in both.
        missing_label: an integer that represents an unknown label, such as -1; among
            floating-point labels, NaN does. Examples without a label count in the distillation
            losses only. See `keras_kd.data.mix`.
        save_teacher: whether `save` puts the teacher into the `.keras` file, so that
            `load_model` gives a complete distiller. Weights files and backups never hold it. A
            distiller that was loaded without its teacher gets one by `distiller.teacher = ...`.
        gather_batches: whether losses that compare examples with one another, such as
            `keras_kd.losses.Relational`, get the examples of all replicas under `tf.distribute`,
            which makes them what they are on one device; `False`: each replica compares its own.
        name: the model's name.
        **kwargs: further arguments of `keras.Model`.

    Attributes:
        student: the student; after training, save it, convert it or use it on its own.
        teacher: always a `keras_kd.teachers.Teacher`; `teacher.models` are
            the models that it runs, `teacher.model` the one of a `ModelTeacher`.

    Both, `distillation_losses`, `distillation_loss_weights`, `student_loss_weight`,
    `teacher_inputs` and `student_inputs` can be set to other values, which count from the next step
    on. With another student, or losses that train weights, a compiled distiller is compiled anew.

    Raises:
        TypeError: if a loss or weight is of the wrong type.
        ValueError: if a model is not a model, the models do not fit each other or the losses, or
            a weight is out of range.

    Example:
        ```python
        distiller = keras_kd.Distiller(teacher, student)
        distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        distiller.fit(x, y, validation_data=(x_test, y_test), epochs=5)
        distiller.student.save("student.keras")
        ```

    Reference:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv 1503.02531
        (2015).
    """

    def __new__(cls, teacher: Any = None, student: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Choose the flavour by the student's Keras."""
        if not _keras.is_tf_keras_model(student):
            # Keras remembers the arguments.
            new: Any = super().__new__
            return new(cls, teacher, student, *args, **kwargs)
        from keras_kd.distiller.tf_keras_distiller import TfKerasDistiller

        if cls is not Distiller:
            raise problem(
                f"a tf_keras student for {cls.__name__}, a subclass of keras_kd.Distiller",
                "a Keras 3 student, because the subclass is a Keras 3 model",
                "derive a class from keras_kd.distiller.TfKerasDistiller instead",
            )
        return TfKerasDistiller(teacher, student, *args, **kwargs)

    def _begin_model(self) -> None:
        self.autocast = False
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")

    @property
    def output_names(self) -> list[str]:
        """The names of the student's outputs, which Keras puts before metrics of several."""
        return self.student.output_names

    def __dir__(self) -> list[str]:
        """All names but `teacher`: Keras saves every model it finds by this list."""
        return [name for name in super().__dir__() if name != "teacher"]

    def build(self, input_shape: Any) -> None:
        """Build both models, where they are not.

        Args:
            input_shape: the shape of the inputs, batch first.
        """
        teacher = self.teacher
        models = [] if teacher is None else teacher.models
        shapes = [self._inputs.of_teacher(input_shape) for _ in models]
        models, shapes = [self.student, *models], [self._inputs.of_student(input_shape), *shapes]
        for model, shape in zip(models, shapes, strict=True):
            if not model.built:
                model.build(shape)
        if teacher is not None:
            connect(self._objective, teacher, self._student_tap.value)
        self.built = True

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Configure training, as `keras.Model.compile` does.

        Args:
            optimizer: the student's optimizer.
            loss: the loss on labels, in any form Keras takes. `None` for the loss of the student
                itself, if it has its own `compute_loss` or was compiled with a loss, or to
                learn from the teacher alone, with `student_loss_weight=0`.
            metrics: measured on the student's outputs.
            **kwargs: further arguments of `keras.Model.compile`.

        Raises:
            TypeError: if there are arguments of the Distiller of older Keras examples.
            ValueError: if there is no loss on labels although it has a weight.
        """
        self._begin_compile(optimizer, loss, metrics, kwargs)
        super().compile(optimizer=optimizer, loss=loss, **self._measured(metrics, kwargs))
        if self._agreement.value is not None:
            # What Keras saves with the model.
            weighted = kwargs.get("weighted_metrics")
            self._compile_config.config.update(metrics=metrics, weighted_metrics=weighted)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train; see `keras.Model.fit`. `class_weight` gives missing labels no class."""
        bound = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs)
        arguments = {name: value for name, value in bound.arguments.items() if name != "self"}
        arguments["callbacks"] = with_logs(arguments.get("callbacks"))
        return call_fit(self, super().fit, arguments)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as before saving; Keras calls this when it loads a model."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            # So that the optimizer's state can be loaded into it.
            self.optimizer.build(self.trainable_variables)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Update the metrics and return their values; see `keras.Model.compute_metrics`."""
        metrics = self._compile_metrics
        if metrics is not None and not metrics.built:
            with _backends.outside_of_steps():
                metrics.build(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    @property
    def metrics(self) -> list[Any]:
        """Those of `keras.Model`, and what a student's own loss keeps."""
        metrics = super().metrics
        return metrics + self._shown_metrics(metrics)

    def get_metrics_result(self) -> dict[str, Any]:
        """The current values of all metrics; of the losses alone before the first labels."""
        if self._compile_metrics is not None and not self._compile_metrics.built:
            return self._tracked_losses()
        return super().get_metrics_result()

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Save everything, the teacher included, into a `.keras` file; see `keras.Model.save`.

        Raises:
            ValueError: if the file's name ends in anything else: in an `.h5` file the teacher would
                be lost.
        """
        if not str(filepath).endswith(".keras"):
            raise _not_in_hdf5(self, filepath)
        super().save(filepath, *args, **kwargs)

    def save_assets(self, dir_path: str) -> None:
        """Put the teacher's weights into a `.keras` file; Keras calls this for no other file."""
        if self.save_teacher and self.teacher is not None:
            for path, model in self._teacher_files(dir_path):
                model.save_weights(path)

    def load_assets(self, dir_path: str) -> None:
        """Read what `save_assets` wrote."""
        if self.teacher is not None:
            for path, model in self._teacher_files(dir_path):
                if os.path.exists(path):
                    model.load_weights(path)

    def _teacher_files(self, directory: str) -> list[tuple[str, Any]]:
        models = [] if self.teacher is None else self.teacher.models
        names = [f"_{number}" for number in range(1, len(models) + 1)] if len(models) > 1 else [""]
        return [
            (os.path.join(directory, f"teacher{name}.weights.h5"), model)
            for name, model in zip(names, models, strict=False)
        ]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, models included.

        Raises:
            ValueError: if a tf_keras teacher would have to be saved, or Keras writes an `.h5` file.
        """
        if _keras.saves_to_hdf5():
            raise _not_in_hdf5(self, "an .h5 file")
        teacher = self.teacher
        foreign = [] if teacher is None else filter(_keras.is_tf_keras_model, teacher.models)
        for model in foreign if self.save_teacher else []:
            raise problem(
                f"the tf_keras teacher {model.name!r} for a file of Keras 3",
                "a Keras 3 teacher, or a distiller that is saved without its teacher",
                "build the Distiller with save_teacher=False and set distiller.teacher after "
                "loading",
            )
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "teacher": serialize(self.teacher) if self.save_teacher else None,
            "student": serialize(self.student),
            "distillation_losses": [serialize(loss) for loss in self.distillation_losses],
            "distillation_loss_weights": [
                serialize_schedule(weight) for weight in self.distillation_loss_weights
            ],
            "student_loss_weight": serialize_schedule(self.student_loss_weight),
            "losses_are_default": self._objective.is_default,
            "bridges": [bridge.shapes for bridge in self._objective.bridges],
            "teacher_inputs": serialize(self.teacher_inputs),
            "student_inputs": serialize(self.student_inputs),
            "missing_label": self.missing_label,
            "save_teacher": self.save_teacher,
            "gather_batches": self.gather_batches,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Distiller:
        """Rebuild the distiller from `get_config`."""

        def deserialize(part: Any) -> Any:
            return keras.saving.deserialize_keras_object(part, custom_objects=custom_objects)

        if config["teacher"] is not None and _keras.saves_to_hdf5():
            raise problem(
                "an .h5 file of a distiller, which has no weights of its teacher",
                "a .keras file",
                "build the Distiller anew with its teacher, and read its weights by "
                "distiller.load_weights, or only those of the student",
            )
        config = {
            **config,
            "teacher": deserialize(config["teacher"]),
            "student": deserialize(config["student"]),
            "distillation_losses": [deserialize(loss) for loss in config["distillation_losses"]],
            "distillation_loss_weights": [
                deserialize_schedule(weight) for weight in config["distillation_loss_weights"]
            ],
            "student_loss_weight": deserialize_schedule(config["student_loss_weight"]),
            "teacher_inputs": deserialize(config["teacher_inputs"]),
            "student_inputs": deserialize(config.get("student_inputs")),
        }
        bridges = config.pop("bridges")
        # Files of before have no such entry.
        is_default = config.pop("losses_are_default", False)
        distiller = cls(**config)
        distiller._objective.is_default = is_default
        # A teacher that comes later finds the adapters that were trained.
        distiller._objective.connect_shapes(bridges)
        return distiller

    def _hold_bridges(self) -> None:
        if vars(self).get("bridges") != self._objective.bridges:
            self._replace("bridges", self._objective.bridges)

    def _mean_of_keras(self) -> type:
        return keras.metrics.Mean

    def _set_policy(self, name: str) -> None:
        self.dtype_policy = name

    def _student_loss(self, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        return label_loss(self._compile_loss, y, y_pred, sample_weight)


Teaching._entry = Distiller


def _not_in_hdf5(distiller: Distiller, filepath: Any) -> ValueError:
    return problem(
        f"{str(filepath)!r} for the distiller {distiller.name!r}",
        "a name that ends in .keras, the one format that holds the teacher, too",
        "call distiller.save('distiller.keras'); distiller.student.save takes any format, and "
        "distiller.export writes the student as a SavedModel",
    )
