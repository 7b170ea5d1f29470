"""The teacher and the student of the quickstart, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from keras import layers

from keras_kd import compression, losses
from keras_kd.callbacks import ResumeTraining
from keras_kd.data import Splits
from keras_kd.distiller import Distiller

# Chosen on images of MNIST that are not in the sample.
TEMPERATURE = 4.0
STUDENT_LOSS_WEIGHT = 0.1
FINAL_SPARSITY = 0.7
BATCH_SIZE = 64
CALIBRATION_IMAGES = 500
LEARNING_RATE = 5e-3
TEACHER_LEARNING_RATE = 2e-3
# A trained student moves less for quantization; where weights were taken away it moves on.
FINE_TUNING_LEARNING_RATE = 1e-3
LOSS = "sparse_categorical_crossentropy"


def build_teacher(image_shape: tuple[int, ...], number_of_classes: int) -> keras.Model:
    """A convolutional network with about 100 000 weights for images of 28x28."""
    return keras.Sequential(
        [
            keras.Input(image_shape, name="image"),
            *_convolution(16),
            layers.MaxPooling2D(),
            *_convolution(32),
            layers.MaxPooling2D(),
            *_convolution(128),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(number_of_classes),
            layers.Softmax(name="probabilities"),
        ],
        name="teacher",
    )


def build_student(image_shape: tuple[int, ...], number_of_classes: int) -> keras.Model:
    """A network of the kind that fits a microcontroller: about 6 000 weights."""
    return keras.Sequential(
        [
            keras.Input(image_shape, name="image"),
            *_convolution(8, strides=2),
            *_convolution(16, strides=2),
            *_convolution(16, strides=2),
            layers.Flatten(),
            layers.Dense(number_of_classes),
            layers.Softmax(name="probabilities"),
        ],
        name="student",
    )


def _convolution(filters: int, strides: int = 1) -> list[keras.Layer]:
    """A convolution whose normalization and activation the converter folds into it."""
    return [
        layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
    ]


def compute_deterministically() -> None:
    """Make TensorFlow give the same results for the same seed, for the rest of the process."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()


class Training:
    """Trains one model after another on the same data, each from the same seed.

    Args:
        dataset: whose training images are used.
        seed: of initial weights and of the order of the examples.
        on_epoch: called after each epoch, to show progress.
        directory: where each training is kept after each epoch, and from where it resumes after an
            interruption; None keeps nothing.
    """

    def __init__(
        self,
        dataset: Splits,
        seed: int,
        on_epoch: Callable[[], None] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.on_epoch = on_epoch or (lambda: None)
        self.directory = directory

    def teacher(self, epochs: int) -> keras.Model:
        """Train the teacher on the labels."""
        keras.utils.set_random_seed(self.seed)
        teacher = build_teacher(self.dataset.image_shape, self.dataset.number_of_classes)
        return self._on_labels("teacher", teacher, epochs, TEACHER_LEARNING_RATE)

    def alone(self, epochs: int) -> keras.Model:
        """Train a student on the labels."""
        return self._on_labels("alone", self._new_student(), epochs, LEARNING_RATE)

    def distilled(self, teacher: keras.Model, epochs: int) -> keras.Model:
        """Train a student on the labels and the teacher; it begins with the weights of `alone`."""
        return self._taught("distilled", teacher, self._new_student(), epochs, LEARNING_RATE)

    def pruned(self, teacher: keras.Model, student: keras.Model, epochs: int) -> keras.Model:
        """Prune a trained student during further distillation."""
        keras.utils.set_random_seed(self.seed)
        pruned = compression.prune(student, FINAL_SPARSITY)
        self._taught("pruned", teacher, pruned, epochs, LEARNING_RATE)
        return compression.strip(pruned)

    def quantization_aware(
        self,
        teacher: keras.Model,
        student: keras.Model,
        epochs: int,
        name: str = "quantization_aware",
    ) -> Any:
        """Train a trained student for 8 bits during further distillation.

        Args:
            teacher: a trained model.
            student: a trained model.
            epochs: how many.
            name: under which the training is kept.

        Returns:
            A quantization-aware `tf_keras.Model`; zeros of a pruned student are still zero.
        """
        keras.utils.set_random_seed(self.seed)
        quantized = compression.quantize_aware(student, self.dataset.x_train[:CALIBRATION_IMAGES])
        return self._taught(name, teacher, quantized, epochs, FINE_TUNING_LEARNING_RATE)

    def _new_student(self) -> keras.Model:
        keras.utils.set_random_seed(self.seed)
        return build_student(self.dataset.image_shape, self.dataset.number_of_classes)

    def _on_labels(
        self, name: str, model: keras.Model, epochs: int, learning_rate: float
    ) -> keras.Model:
        model.compile(self._optimizer(epochs, learning_rate), LOSS)
        self._fit(name, model, epochs)
        return model

    def _taught(
        self, name: str, teacher: Any, student: Any, epochs: int, learning_rate: float
    ) -> Any:
        distiller = Distiller(
            teacher,
            student,
            losses.SoftTargets(temperature=TEMPERATURE),
            student_loss_weight=STUDENT_LOSS_WEIGHT,
        )
        distiller.compile(self._optimizer(epochs, learning_rate), LOSS)
        self._fit(name, distiller, epochs)
        return student

    def _optimizer(self, epochs: int, learning_rate: float) -> keras.optimizers.Optimizer:
        steps = epochs * -(-len(self.dataset.x_train) // BATCH_SIZE)
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))

    def _fit(self, name: str, trainer: Any, epochs: int) -> None:
        """Train, from where a run stopped that was interrupted."""
        left = [self.on_epoch] * epochs
        data = (self.dataset.x_train, self.dataset.y_train)
        options = {
            "batch_size": BATCH_SIZE,
            "epochs": epochs,
            "verbose": 0,
            "callbacks": [
                keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: left.pop()())
            ],
        }
        if self.directory is None:
            trainer.fit(*data, **options)
        else:
            ResumeTraining(self.directory / name).fit(trainer, *data, **options)
        # Those that an earlier run has done.
        for on_epoch in left:
            on_epoch()
