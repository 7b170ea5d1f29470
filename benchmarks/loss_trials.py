"""What one trial of `losses.py` is: the data, the teacher, a student, one loss, one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd
from keras_kd._files import replacing
from keras_kd.data import Splits
from keras_kd.losses import DistillationLoss
from keras_kd.metrics import accuracy
from keras_kd.schedules import Schedule

VALIDATION_IMAGES = 10_000


@dataclass(frozen=True)
class Setting:
    """What all trials have in common; chosen on the validation images, never on the test images.

    Attributes:
        scored_on: "test", or "validation": the last of the training images, which no model learns
            from in either case.
        teacher_images: how many training images the teacher learns from.
        student_images: how many of these the students learn from.
        teacher_epochs: how often the teacher sees its images.
        student_epochs: how often a student sees its images.
        teacher_learning_rate: of Adam, where its cosine decay begins.
        student_learning_rate: of Adam, where its cosine decay begins.
        batch_size: images per step.
        teacher_channels: of the teacher's three convolutions.
        student_channels: of the student's.
    """

    scored_on: str = "test"
    teacher_images: int = 50_000
    student_images: int = 2_000
    teacher_epochs: int = 6
    student_epochs: int = 24
    teacher_learning_rate: float = 2e-3
    student_learning_rate: float = 2e-2
    batch_size: int = 64
    teacher_channels: tuple[int, ...] = (16, 32, 64)
    student_channels: tuple[int, ...] = (8, 16, 32)

    @property
    def student_steps(self) -> int:
        """The number of updates of a student."""
        return self.student_epochs * (self.student_images // self.batch_size)

    @property
    def of_the_teacher(self) -> str:
        """A name for what makes the teacher what it is."""
        parts = [
            value
            for name, value in asdict(self).items()
            if name.startswith("teacher") or name == "batch_size"
        ]
        return sha256(repr(parts).encode()).hexdigest()[:12]


class Row(NamedTuple):
    """A loss as it is tried.

    Attributes:
        loss: its class.
        layers: the layers of teacher and student that it compares; none compares the outputs.
        weight: what it counts beside the loss on labels, which counts 1; or a function from the
            number of a student's steps to a schedule.
        arguments: of its constructor; a function in place of one is called with the teacher's
            layer.
    """

    loss: type[DistillationLoss]
    layers: tuple[str, ...]
    weight: float | Callable[[int], Schedule]
    arguments: dict[str, Any]

    @property
    def description(self) -> dict[str, Any]:
        """The row in words and numbers, as results are filed under it."""
        return {
            "loss": self.loss.__name__,
            "layers": list(self.layers),
            "weight": _written(self.weight),
            "arguments": {name: _written(value) for name, value in self.arguments.items()},
        }


ALONE: dict[str, Any] = {"loss": "alone", "layers": [], "weight": 0.0, "arguments": {}}


class Classroom:
    """The teacher and the images, the same for all students.

    Args:
        dataset: training and test images.
        setting: sizes, epochs and learning rates.
        cache: the directory that keeps trained teachers.

    Attributes:
        scored: the images that the setting scores on, and their labels.
    """

    def __init__(self, dataset: Splits, setting: Setting, cache: Path) -> None:
        self.setting = setting
        self._x, self._y = dataset.x_train, dataset.y_train
        if setting.scored_on == "test":
            self.scored = dataset.x_test, dataset.y_test
        else:
            self.scored = self._x[-VALIDATION_IMAGES:], self._y[-VALIDATION_IMAGES:]
        self.teacher_path = cache / f"teacher-{setting.of_the_teacher}.keras"
        if not self.teacher_path.exists():
            with replacing(self.teacher_path) as temporary:
                self._new_teacher().save(temporary)
        self.teacher = keras.models.load_model(self.teacher_path)

    def score(self, model: keras.Model) -> float:
        """The accuracy in percent on the images that the setting scores on."""
        images, labels = self.scored
        return 100 * accuracy(model.predict(images, batch_size=500, verbose=0), labels)

    def learner(self, row: Row | None, seed: int) -> tuple[keras.Model, keras.Model]:
        """A student with the initial weights of the seed, and the compiled model that trains it."""
        # Whatever a loss or its adapters draw comes after the student's weights.
        keras.utils.set_random_seed(seed)
        student = convolutional_network(self.setting.student_channels, "student")
        learner = student if row is None else self._distiller(row, student)
        compile_classifier(learner, self.setting.student_learning_rate, self.setting.student_steps)
        return student, learner

    def trial(self, row: Row | None, seed: int) -> float:
        """The score of a student that a loss has taught, or that was alone."""
        setting = self.setting
        student, learner = self.learner(row, seed)
        learner.fit(
            self.batches(setting.student_images, setting.student_epochs, seed),
            shuffle=False,
            verbose=0,
        )
        score = self.score(student)
        keras.utils.clear_session()
        return score

    def batches(self, images: int, epochs: int, seed: int) -> tf.data.Dataset:
        """All batches of a training, in an order that the seed alone decides."""
        generator = np.random.default_rng(seed)
        whole = images - images % self.setting.batch_size
        order = np.concatenate([generator.permutation(images)[:whole] for _ in range(epochs)])
        x, y = tf.constant(self._x[:images]), tf.constant(self._y[:images])
        indexes = tf.data.Dataset.from_tensor_slices(order).batch(self.setting.batch_size)
        return indexes.map(lambda chosen: (tf.gather(x, chosen), tf.gather(y, chosen)))

    def _distiller(self, row: Row, student: keras.Model) -> keras_kd.Distiller:
        arguments = {
            name: value(self.teacher.get_layer(row.layers[0])) if callable(value) else value
            for name, value in row.arguments.items()
        }
        if row.layers:
            names = row.layers[0] if len(row.layers) == 1 else list(row.layers)
            arguments |= {"teacher_layer_name": names, "student_layer_name": names}
        weight = row.weight(self.setting.student_steps) if callable(row.weight) else row.weight
        # Half of `labels + weight * loss`, a factor that Adam does not notice.
        return keras_kd.Distiller(
            self.teacher, student, row.loss(**arguments), [weight], student_loss_weight=0.5
        )

    def _new_teacher(self) -> keras.Model:
        setting = self.setting
        keras.utils.set_random_seed(0)
        teacher = convolutional_network(setting.teacher_channels, "teacher")
        steps = setting.teacher_epochs * (setting.teacher_images // setting.batch_size)
        compile_classifier(teacher, setting.teacher_learning_rate, steps)
        teacher.fit(
            self.batches(setting.teacher_images, setting.teacher_epochs, 0),
            shuffle=False,
            verbose=0,
        )
        return teacher


def compile_classifier(model: keras.Model, learning_rate: float, steps: int) -> None:
    """Let a model of logits learn for so many steps."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )


def convolutional_network(channels: tuple[int, ...], name: str) -> keras.Model:
    """A classifier of images of 28x28 that ends in logits.

    Its layers are "block1" (14x14), "block2" (7x7), "block3" (4x4), each with what is before its
    ReLU in "block1_before" and so on, and "embedding", the mean of block3 over the positions.
    """
    inputs = hidden = keras.Input((28, 28, 1), name="image")
    for number, count in enumerate(channels, 1):
        block = f"block{number}"
        hidden = layers.Conv2D(count, 3, strides=2, padding="same", use_bias=False)(hidden)
        hidden = layers.BatchNormalization(momentum=0.9, name=f"{block}_before")(hidden)
        hidden = layers.ReLU(name=block)(hidden)
    hidden = layers.GlobalAveragePooling2D(name="embedding")(hidden)
    return keras.Model(inputs, layers.Dense(10, name="logits")(hidden), name=name)


def _written(value: Any) -> Any:
    return value.__name__.replace("_", " ") if callable(value) else value
