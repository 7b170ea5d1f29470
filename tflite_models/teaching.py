"""How the students in this directory are taught: the subjects, the networks, the lessons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd
from keras_kd import compression, losses
from keras_kd.data import Splits

SEED = 7
CALIBRATION_IMAGES = 500
_SIDE = 28


@dataclass(frozen=True)
class Subject:
    """What a student learns to tell apart.

    Attributes:
        name: of the directory that its files go to.
        data: the name of the data set in TFDS.
        title: what its authors call it.
        source: where it comes from.
        licence: of the data.
        turn: by how many radians training images are turned, at most.
        growth: by what share they are made larger or smaller, at most.
        shift: by how many pixels they are moved, at most.
        mirrored: whether half of them are mirrored.
    """

    name: str
    data: str
    title: str
    source: str
    licence: str
    turn: float
    growth: float
    shift: float
    mirrored: bool


DIGITS = Subject(
    name="digits",
    data="mnist",
    title="MNIST",
    source="Yann LeCun, Corinna Cortes and Christopher J. C. Burges",
    licence="CC BY-SA 3.0",
    turn=0.25,
    growth=0.15,
    shift=2.0,
    mirrored=False,
)
CLOTHES = Subject(
    name="clothes",
    data="fashion_mnist",
    title="Fashion-MNIST",
    source="Han Xiao, Kashif Rasul and Roland Vollgraf, Zalando Research",
    licence="MIT",
    turn=0.0,
    growth=0.05,
    shift=1.0,
    mirrored=True,
)


@dataclass(frozen=True)
class Setting:
    """How much is learned; the same for all subjects, and never chosen on test images.

    Attributes:
        images: how many training images are used; None for all.
        teacher_epochs: how often the teacher sees them.
        student_epochs: how often the student sees them while it is taught in float.
        pruning_epochs: the same while its weights become zero.
        quantization_epochs: the same while it learns to compute in 8 bits.
        batch_size: images per step.
        teacher_learning_rate: of Adam, where its cosine decay begins.
        student_learning_rate: the same for the student, and while it is pruned.
        quantization_learning_rate: the same for 8 bits: what is trained moves less for them.
        temperature: of the teacher's answers.
        labels_weight: what the labels count beside the teacher.
        sparsity: the share of weights that become zero.
    """

    images: int | None = None
    teacher_epochs: int = 6
    student_epochs: int = 8
    pruning_epochs: int = 3
    quantization_epochs: int = 2
    batch_size: int = 128
    teacher_learning_rate: float = 2e-3
    student_learning_rate: float = 5e-3
    quantization_learning_rate: float = 5e-4
    temperature: float = 4.0
    labels_weight: float = 0.1
    sparsity: float = 0.7


class Classroom:
    """A teacher and the forms of its student, each trained when it is first asked for.

    Args:
        dataset: the images and labels.
        subject: what they are of.
        setting: how much is learned.
        cache: a directory that keeps what has been trained.
    """

    def __init__(self, dataset: Splits, subject: Subject, setting: Setting, cache: Path) -> None:
        self.dataset = dataset.first(setting.images)
        self.subject = subject
        self.setting = setting
        self._cache = cache

    @cached_property
    def teacher(self) -> keras.Model:
        """About 100 000 weights, trained on the labels."""

        def train() -> keras.Model:
            teacher = build_teacher(self.dataset.number_of_classes)
            self._fit(teacher, self.setting.teacher_epochs, self.setting.teacher_learning_rate)
            return teacher

        return self._kept("teacher", train)

    @cached_property
    def distilled(self) -> keras.Model:
        """The student, about 9 000 weights, taught by the teacher."""
        return self._kept(
            "distilled",
            lambda: self._taught(
                build_student(self.dataset.number_of_classes),
                self.setting.student_epochs,
                self.setting.student_learning_rate,
            ),
        )

    @cached_property
    def pruned(self) -> keras.Model:
        """The student after most of its weights became zero while the teacher went on."""
        return self._kept(
            "pruned",
            lambda: compression.strip(
                self._taught(
                    compression.prune(self.distilled, self.setting.sparsity),
                    self.setting.pruning_epochs,
                    self.setting.student_learning_rate,
                )
            ),
        )

    @cached_property
    def pruned_quantized(self) -> Any:
        """The pruned student, quantization-aware, taught once more; its zeros stay."""
        return self._kept(
            "pruned-quantized",
            lambda: self._taught(
                compression.quantize_aware(self.pruned, self.calibration, input_range=(0, 1)),
                self.setting.quantization_epochs,
                self.setting.quantization_learning_rate,
            ),
            compression.load,
        )

    @property
    def calibration(self) -> np.ndarray:
        """Training images from which the ranges of activations are read."""
        return self.dataset.x_train[:CALIBRATION_IMAGES]

    def kept_as(self, name: str) -> Path:
        """The file in the cache of a model that this subject and setting make."""
        digest = sha256(repr((SEED, self.subject, self.setting)).encode()).hexdigest()[:12]
        return self._cache / f"{self.subject.name}-{name}-{digest}.keras"

    def _kept(
        self,
        name: str,
        train: Callable[[], Any],
        load: Callable[[Path], Any] = keras.models.load_model,
    ) -> Any:
        path = self.kept_as(name)
        if not path.exists():
            print(f"{self.subject.name}: training {name}", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"unfinished-{path.name}")
            train().save(unfinished)
            unfinished.replace(path)
        return load(path)

    def _taught(self, student: Any, epochs: int, learning_rate: float) -> Any:
        distiller = keras_kd.Distiller(
            self.teacher,
            student,
            losses.SoftTargets(temperature=self.setting.temperature),
            student_loss_weight=self.setting.labels_weight,
        )
        self._fit(distiller, epochs, learning_rate)
        return student

    def _fit(self, model: Any, epochs: int, learning_rate: float) -> None:
        steps = len(self.dataset.x_train) // self.setting.batch_size
        schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
        model.compile(
            keras.optimizers.Adam(schedule),
            "sparse_categorical_crossentropy",
            jit_compile=False,
        )
        model.fit(
            self._batches(epochs),
            steps_per_epoch=steps,
            epochs=epochs,
            shuffle=False,
            verbose=2,
        )

    def _batches(self, epochs: int) -> tf.data.Dataset:
        """So many epochs of whole batches; the seed alone decides their order and distortions."""
        count, size = len(self.dataset.x_train), self.setting.batch_size
        generator = np.random.default_rng(SEED)
        whole = count - count % size
        order = np.concatenate([generator.permutation(count)[:whole] for _ in range(epochs)])
        images, labels = tf.constant(self.dataset.x_train), tf.constant(self.dataset.y_train)

        def batch(step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return moved(tf.gather(images, chosen), self.subject, step), tf.gather(labels, chosen)

        numbered = tf.data.Dataset.from_tensor_slices(order.reshape(-1, size)).enumerate()
        return numbered.map(batch, num_parallel_calls=2).prefetch(2)


def moved(images: tf.Tensor, subject: Subject, step: tf.Tensor) -> tf.Tensor:
    """Images turned, scaled, shifted and mirrored at random: a function of the step."""
    seed = tf.stack([tf.constant(SEED, tf.int64), tf.cast(step, tf.int64)])
    draws = tf.random.stateless_uniform((tf.shape(images)[0], 5), seed, minval=-1.0)
    angle, scale = subject.turn * draws[:, 0], 1 + subject.growth * draws[:, 1]
    right, down = subject.shift * draws[:, 2], subject.shift * draws[:, 3]
    flip = tf.where((draws[:, 4] > 0) & subject.mirrored, -1.0, 1.0)
    # Each row maps a pixel of the result to the place in the image that it shows.
    cosine, sine, centre = scale * tf.cos(angle), scale * tf.sin(angle), (_SIDE - 1) / 2
    across = [flip * cosine, -flip * sine, flip * (sine - cosine) * centre + centre + right]
    along = [sine, cosine, -(sine + cosine) * centre + centre + down]
    zero = tf.zeros_like(angle)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([*across, *along, zero, zero], axis=1),
        output_shape=(_SIDE, _SIDE),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def build_teacher(number_of_classes: int) -> keras.Model:
    """A convolutional network with about 100 000 weights for images of 28x28, always the same."""
    keras.utils.set_random_seed(SEED)
    return _classifier(
        "teacher",
        [
            *_convolution(24, strides=2),
            *_convolution(48, strides=2),
            *_convolution(96),
            layers.Flatten(),
            layers.Dropout(0.4),
        ],
        number_of_classes,
    )


def build_student(number_of_classes: int) -> keras.Model:
    """A network of about 9 000 weights that a microcontroller has room for, always the same."""
    keras.utils.set_random_seed(SEED)
    return _classifier(
        "student",
        [
            *_convolution(8),
            layers.MaxPooling2D(),
            *_convolution(16),
            layers.MaxPooling2D(),
            *_convolution(24, strides=2),
            layers.Flatten(),
        ],
        number_of_classes,
    )


def _classifier(name: str, hidden: list[keras.Layer], number_of_classes: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((_SIDE, _SIDE, 1), name="image"),
            *hidden,
            layers.Dense(number_of_classes),
            layers.Softmax(name="probabilities"),
        ],
        name=name,
    )


def _convolution(filters: int, strides: int = 1) -> list[keras.Layer]:
    """A convolution whose normalization and activation the converter folds into it."""
    return [
        layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
    ]
