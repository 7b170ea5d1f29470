"""Training of the students of a search from stored outputs of the teacher."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_kd import compression
from keras_kd._checks import check_choice, one_line, problem, shapes_fit, three_parts
from keras_kd._examples import by_position
from keras_kd._keras import check_model, is_tf_keras_model
from keras_kd.data.in_memory import is_dataset, to_arrays
from keras_kd.distiller import Distiller
from keras_kd.metrics import MEASURES, Measure, measure, task_of
from keras_kd.metrics.tasks import is_distribution, labels_for
from keras_kd.teachers import StoredTeacher
from keras_kd.tflite.verification.verification import check_finite_weights

_BATCH_OF_PREDICTIONS = 256
# Trained quantization-aware, a student moves less.
FINE_TUNING_SHARE = 0.2


@dataclass(frozen=True)
class Recipe:
    """How each student is trained.

    Attributes:
        epochs: of a finalist, in its last rung; half as many follow with quantizers, and half as
            many with growing sparsity where pruning counts.
        batch_size: of all trainings.
        learning_rate: where the cosine of each training begins (Adam).
        student_loss_weight: see `keras_kd.Distiller`.
        distillation_losses: see `keras_kd.Distiller`; None: its defaults.
        loss: on labels.
        sparsity: of pruned students.
        seed: of the order of the examples and of new weights.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    student_loss_weight: float
    distillation_losses: Any
    loss: Any
    sparsity: float
    seed: int

    @property
    def fine_tuning_epochs(self) -> int:
        """How long a finalist is pruned, and how long it is trained quantization-aware."""
        return max(1, (self.epochs + 1) // 2)


@dataclass(frozen=True)
class Examples:
    """Data for training or for choosing.

    Attributes:
        x: inputs, an array or a dict of arrays by input name.
        y: labels or targets, an array.
        code: Python lines that make this x from the one that was given, as `x_train`.
        given: the names of what was given, in these lines.
    """

    x: Any
    y: np.ndarray
    code: tuple[str, ...] = ()
    given: str = "x_train, y_train"

    @classmethod
    def of(cls, name: str, data: Any, inputs: Sequence[Any] = ()) -> Examples:
        """Read a pair of arrays, or a dataset of batches.

        Args:
            name: of the argument, for messages.
            data: (x, y), or what `keras_kd.data.to_arrays` takes.
            inputs: of the model that takes x, by which a list of arrays gets names.

        Raises:
            TypeError: if it is another structure.
            ValueError: if lengths differ, or there is no example.
        """
        code: tuple[str, ...] = ()
        given = cls.given
        if is_dataset(data):
            data = to_arrays(data, sort=True, name=name)
            code, given = (f"{given} = keras_kd.data.to_arrays(data, sort=True)",), "data"
        if not isinstance(data, (tuple, list)) or len(data) != 2:
            raise problem(
                f"{name} of type {type(data).__name__}",
                "a pair (x, y) of arrays, or a dataset of batches (x, y)",
                f"pass {name}=(x, y); x may be a dict of arrays by input name",
                kind=TypeError,
            )
        x, y = data
        if isinstance(x, (list, tuple)) and len(inputs) > 1:
            x, named = _named(name, x, inputs)
            code += named
        x = (
            {key: np.asarray(value) for key, value in x.items()}
            if isinstance(x, Mapping)
            else np.asarray(x)
        )
        y = np.asarray(y)
        lengths = {len(array) if array.ndim else 0 for array in (*keras.tree.flatten(x), y)}
        if len(lengths) != 1 or lengths == {0}:
            raise problem(
                f"{name} with arrays of {sorted(lengths)} examples",
                "as many labels as inputs, and at least one",
                "pass x and y of the same examples",
            )
        if any(array.dtype.kind not in "biuf" for array in (*keras.tree.flatten(x), y)):
            raise problem(
                f"{name} with arrays of other values than numbers",
                "numbers",
                "encode texts and categories as numbers, as for the training of the teacher",
                kind=TypeError,
            )
        for array in (*keras.tree.flatten(x), y):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise problem(
                    f"{name} with NaN or infinity", "finite numbers", "remove these examples"
                )
        return cls(x, y, code, given)

    def for_inputs_of(self, model: Any) -> Examples:
        """The same, whole numbers as float32 where a model has an input of real numbers.

        Models that scale the bytes of pixels themselves take them; quantizers want real numbers.
        """
        inputs = getattr(model, "inputs", None) or []
        real = {
            each.name for each in inputs if "float" in keras.backend.standardize_dtype(each.dtype)
        }
        if not isinstance(self.x, Mapping):
            if not real or self.x.dtype.kind not in "biu":
                return self
            code = 'x_train = x_train.astype("float32")'
            x = self.x.astype("float32")
            return replace(self, x=x, code=(*self.code, code))
        whole = [name for name in self.x if name in real and self.x[name].dtype.kind in "biu"]
        if not whole:
            return self
        x = {**self.x, **{name: self.x[name].astype("float32") for name in whole}}
        parts = ", ".join(f'{name!r}: x_train[{name!r}].astype("float32")' for name in whole)
        return replace(self, x=x, code=(*self.code, f"x_train = {{**x_train, {parts}}}"))

    def __len__(self) -> int:
        return len(self.y)


def _named(
    name: str, x: Sequence[Any], inputs: Sequence[Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arrays of a list by the names of the inputs that they are for, and the code for it."""
    named = by_position(x, inputs)
    if named is None:
        shapes = [f"{tuple(each.shape)[1:]} for {each.name!r}" for each in inputs]
        raise problem(
            f"{name} with a list of {len(x)} inputs for a teacher with {len(inputs)}",
            f"arrays of {', '.join(shapes)}",
            f"pass {name}=({{{inputs[0].name!r}: ..., {inputs[1].name!r}: ...}}, y)",
        )
    places = [next(n for n, part in enumerate(x) if part is each) for each in named.values()]
    pairs = [f"{key!r}: x_train[{place}]" for key, place in zip(named, places, strict=True)]
    return named, (f"x_train = {{{', '.join(pairs)}}}",)


@dataclass(frozen=True)
class Judge:
    """What students are compared by, on examples that none of them was trained on.

    Attributes:
        examples: the validation data.
        measure: the measure that counts.
        task: of `keras_kd.metrics.TASKS`.
    """

    examples: Examples
    measure: Measure
    task: str

    @classmethod
    def of(cls, teacher: Any, examples: Examples, metric: str | None) -> tuple[Judge, np.ndarray]:
        """The judge of a task, and what the teacher gives for the examples.

        Raises:
            ValueError: if the teacher does not fit the examples, has several outputs, or the task
                has no such measure.
        """
        check_model("teacher", teacher)
        check_finite_weights(teacher, "teacher")
        outputs = outputs_of(teacher, examples)
        task = task_of(outputs, examples.y)
        measures = {each.name: each for each in MEASURES[task]}
        name = next(iter(measures)) if metric is None else metric
        chosen = measures[check_choice("metric", name, tuple(measures))]
        return cls(examples, chosen, task), outputs

    def value(self, outputs: np.ndarray) -> float:
        """The measure of outputs for the examples."""
        found = measure(outputs, self.examples.y, task=self.task)
        if self.measure.name not in found:
            raise problem(
                f"metric={self.measure.name!r} for outputs of shape {outputs.shape}",
                f"one of {', '.join(map(repr, found))}, which apply to these outputs",
                "choose one of them",
            )
        return found[self.measure.name]

    def of_model(self, model: keras.Model) -> float:
        """The measure of a Keras model."""
        return self.value(predictions(model, self.examples.x))

    def of_file(self, model: Any) -> float:
        """The measure of a `TFLiteModel`, run in LiteRT."""
        return self.value(np.asarray(model.predict(as_floats(model, self.examples.x))))

    def signed(self, value: float) -> float:
        """The value, or its opposite where less is better."""
        return value if self.measure.higher_is_better else -value

    def text(self, value: float) -> str:
        """The value for people: "97.45 %"."""
        return self.measure.write_with_unit(value)


def as_floats(model: Any, x: Any) -> Any:
    """Inputs as a file takes them: whole numbers as float32 where its input is a real number."""
    real = {tensor.name for tensor in model.inputs if tensor.is_quantized or tensor.dtype == "f4"}
    if isinstance(x, Mapping):
        return {key: value.astype("float32") if key in real else value for key, value in x.items()}
    return x.astype("float32") if real else x


def predictions(model: Any, x: Any) -> np.ndarray:
    """The outputs of a Keras model for inputs, shaped (examples, ...)."""
    return np.asarray(model.predict(x, batch_size=_BATCH_OF_PREDICTIONS, verbose=0))


def outputs_of(
    teacher: Any, examples: Examples, name: str = "validation_data", most: int | None = None
) -> np.ndarray:
    """What a teacher gives for examples.

    Args:
        teacher: the model.
        examples: the inputs.
        name: of the argument that they came in.
        most: how many examples are run; None: all.

    Raises:
        ValueError: if it cannot be run on them, has several outputs, or they are not finite.
    """
    x = keras.tree.map_structure(lambda array: array[:most], examples.x)
    _check_shapes(teacher, x, name)
    try:
        outputs = teacher.predict(x, batch_size=_BATCH_OF_PREDICTIONS, verbose=0)
    except Exception as error:
        # Keras and TensorFlow raise errors of many kinds here.
        raise problem(
            f"a teacher {teacher.name!r} that cannot be run on these inputs of {name} "
            f"({one_line(error)[:200]})",
            "inputs as the teacher was trained on",
            "pass x in the shape and the scale of its training",
        ) from error
    if not isinstance(outputs, np.ndarray):
        package = "tf_keras" if is_tf_keras_model(teacher) else "keras"
        raise problem(
            f"a teacher {teacher.name!r} with several outputs",
            "one output, by which students are compared",
            f"pass {package}.Model(teacher.inputs, teacher.outputs[0])",
        )
    if not np.isfinite(outputs).all():
        raise problem(
            f"a teacher {teacher.name!r} whose outputs are NaN or infinite",
            "finite outputs",
            "check its weights and the scale of x",
        )
    return outputs


def _check_shapes(teacher: Any, x: Any, name: str) -> None:
    """Refuse inputs of other shapes than those of the teacher.

    Keras adds and removes axes of length 1, which quantizers and files do not.
    """
    inputs = getattr(teacher, "inputs", None) or ()
    arrays = x if isinstance(x, Mapping) else {inputs[0].name: x} if len(inputs) == 1 else {}
    wanted = [each.name for each in inputs]
    # The dict that a model was built from may have names of its own.
    structure = getattr(teacher, "input", None)
    keys = {*structure} if isinstance(structure, Mapping) else {*wanted}
    if inputs and not {*wanted} <= {*arrays} and not keys <= {*arrays}:
        given = f"the arrays {list(arrays)}" if arrays else "one array"
        raise problem(
            f"{name} with {given} for the inputs {wanted} of {teacher.name!r}",
            "an array for each input",
            f"pass {name}=({{{wanted[0]!r}: ...}}, y) with an array under the name of each input",
        )
    for each in inputs:
        shape = tuple(each.shape)[1:]
        if each.name in arrays and not shapes_fit(arrays[each.name].shape[1:], shape):
            raise problem(
                f"{name} with an array of shape {arrays[each.name].shape} for the input "
                f"{each.name!r} of {teacher.name!r}",
                f"examples of shape {shape}",
                "pass x in the shape of its training; x[..., None] adds an axis",
            )


def check_labels(y: np.ndarray, judge: Judge, outputs: np.ndarray) -> None:
    """Refuse training labels that the usual loss of the validation labels does not take.

    Args:
        y: of the training data.
        judge: with the validation labels.
        outputs: of the teacher for the validation data.

    Raises:
        ValueError: if they have another form, or are no labels of the outputs.
    """
    shape, others = outputs.shape[1:], judge.examples.y
    has_columns = bool(shape) and shape[-1] > 1
    if has_columns and (y.shape[1:] == shape) != (others.shape[1:] == shape):
        raise problem(
            f"data with labels of shape {y.shape}, validation_data of {others.shape}",
            "labels of one form in both: class numbers, or rows like the teacher's outputs",
            "write both in one form, or pass loss= for that of data",
        )
    # Only the shape and the type of the outputs count.
    labels_for(judge.task, y, np.broadcast_to(outputs[:1], (len(y), *shape)), "output")


def warn_of_untrained(teacher: Any, judge: Judge, outputs: np.ndarray) -> None:
    """Warn of a teacher that predicts the validation labels no better than a constant.

    It was not trained, on other inputs than these, or its classes have other numbers.

    Args:
        teacher: the model.
        judge: with the validation labels.
        outputs: of the teacher for these.
    """
    if judge.task not in ("classification", "multilabel", "regression"):
        return
    [usual, *_] = MEASURES[judge.task]
    y = labels_for(judge.task, judge.examples.y, outputs, "output")
    if judge.task != "classification":
        constant = y.mean(axis=0)
    elif outputs.ndim > 1 and outputs.shape[-1] > 1:
        constant = np.bincount(y.ravel(), minlength=outputs.shape[-1]) / y.size
    else:
        constant = y.mean()
    judges = Judge(judge.examples, usual, judge.task)
    value = judges.value(outputs)
    least = judges.value(np.broadcast_to(constant, outputs.shape).astype("float32"))
    if judges.signed(value) > judges.signed(least):
        return
    warnings.warn(
        three_parts(
            f"a teacher {teacher.name!r} whose {usual.heading} of {judges.text(value)} is no "
            f"better than that of a constant answer, {judges.text(least)}",
            "a trained teacher, and the inputs and labels of its training",
            "train it, or check the scale of x and the numbers of the classes",
        ),
        stacklevel=3,
    )


def usual_loss(task: str, outputs: np.ndarray, y: np.ndarray) -> keras.losses.Loss:
    """The loss on labels of a task.

    Args:
        task: of `keras_kd.metrics.TASKS`.
        outputs: of the teacher.
        y: labels.

    Raises:
        ValueError: if the task has none.
    """
    if task == "classification" and outputs.ndim > 1 and outputs.shape[-1] > 1:
        from_logits = not is_distribution(outputs)
        if y.shape == outputs.shape:
            return keras.losses.CategoricalCrossentropy(from_logits=from_logits)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    if task in ("classification", "multilabel"):
        from_logits = bool(outputs.min() < 0 or outputs.max() > 1)
        return keras.losses.BinaryCrossentropy(from_logits=from_logits)
    if task == "regression":
        return keras.losses.MeanSquaredError()
    raise problem(
        f"a teacher for the task {task!r} without a loss",
        "the loss that its students are trained with",
        "pass loss=keras.losses.MeanSquaredError(), for example",
    )


class Deadline(keras.callbacks.Callback):
    """Ends a training when its time is over.

    Args:
        seconds: how long it may take; None: as long as it needs.

    Attributes:
        is_over: whether it has ended the training.
        start_seconds: how long the first step took, with all that is made before it.
    """

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self.is_over = False
        self.start_seconds: float | None = None
        self._began = time.monotonic()
        self._end = None if seconds is None else self._began + seconds

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the clock."""
        model: Any = self.model
        if self.start_seconds is None:
            self.start_seconds = time.monotonic() - self._began
        if self._end is not None and time.monotonic() > self._end:
            model.stop_training = self.is_over = True


@dataclass
class School:
    """Trains students on the labels and the stored outputs of the teacher.

    Attributes:
        stored: what the teacher gives for the training data.
        data: the training data.
        recipe: how.
        seconds: what all trainings so far took.
    """

    stored: StoredTeacher
    data: Examples
    recipe: Recipe
    seconds: float = 0.0

    def teach(
        self,
        student: Any,
        epochs: int,
        seconds: float | None,
        *,
        share: float = 1.0,
        seed: int = 0,
    ) -> Deadline:
        """Train a student of either Keras.

        Args:
            student: trained in place.
            epochs: how many, with a learning rate that falls to 0 along a cosine.
            seconds: after which it ends early.
            share: of the recipe's learning rate.
            seed: added to the recipe's.

        Returns:
            Whether it ended early, and how long its first step took.
        """
        recipe, began = self.recipe, time.monotonic()
        keras.utils.set_random_seed((recipe.seed + seed) % 2**32)
        steps = epochs * -(-len(self.data) // recipe.batch_size)
        rate: Any = keras.optimizers.schedules.CosineDecay(recipe.learning_rate * share, steps)
        distiller = Distiller(
            self.stored,
            student,
            recipe.distillation_losses,
            student_loss_weight=recipe.student_loss_weight,
        )
        distiller.compile(keras.optimizers.Adam(rate), recipe.loss)
        joined = self.stored.join(
            (self.data.x, self.data.y), recipe.batch_size, seed=recipe.seed + seed
        )
        deadline = Deadline(seconds)
        distiller.fit(joined, epochs=epochs, shuffle=False, verbose=0, callbacks=[deadline])
        self.seconds += time.monotonic() - began
        return deadline

    def prune(
        self, student: keras.Model, seconds: float | None, seed: int
    ) -> tuple[keras.Model, bool]:
        """The student with the recipe's share of zeros, trained while they are made.

        Returns:
            The student, and whether its training ended early.
        """
        pruned = compression.prune(student, self.recipe.sparsity)
        deadline = self.teach(pruned, self.recipe.fine_tuning_epochs, seconds, seed=seed)
        return compression.strip(pruned), deadline.is_over

    def quantize(self, aware: Any, seconds: float | None, seed: int) -> bool:
        """Train a student with quantizers; whether this ended early."""
        return self.teach(
            aware,
            self.recipe.fine_tuning_epochs,
            seconds,
            share=FINE_TUNING_SHARE,
            seed=seed,
        ).is_over
