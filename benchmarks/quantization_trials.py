"""What one trial of `quantization.py` is: a student of a seed, brought to few bits in one way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from loss_trials import Classroom, compile_classifier

import keras_kd
from keras_kd import compression, losses, tflite
from keras_kd._files import replacing
from keras_kd.metrics import accuracy
from keras_kd.tflite import TFLiteModel


@dataclass(frozen=True)
class Setting:
    """What all trials have in common; chosen on the validation images, never on the test images.

    Attributes:
        scored_on: "test", or "validation": the last of the training images, which no model learns
            from in either case.
        images: how many training images the students learn from.
        float_epochs: how often a student sees them before its weights are to become few bits.
        further_epochs: how often after that, in float or quantization-aware alike.
        float_learning_rate: of Adam, where its cosine decay begins.
        further_learning_rate: the same for the further epochs, of all ways.
        temperature: of the teacher's answers.
        labels_weight: what the labels count beside a teacher; 1 minus this is for the teacher.
        channels: of the student's blocks.
    """

    scored_on: str = "test"
    images: int = 2_000
    float_epochs: int = 32
    further_epochs: int = 12
    float_learning_rate: float = 1e-2
    further_learning_rate: float = 2e-3
    temperature: float = 2.0
    labels_weight: float = 0.1
    channels: tuple[int, ...] = (8, 16, 32)

    def of_float_students(self, trained_further: bool) -> str:
        """A name for what makes float students what they are."""
        parts = [
            (name, value)
            for name, value in asdict(self).items()
            if name != "scored_on" and (trained_further or not name.startswith("further"))
        ]
        return sha256(repr(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Way:
    """A way from a float student to a file.

    Attributes:
        start: whether the float student was "alone" with the labels or "taught".
        further: who trains it further, "labels" or "teacher"; None for nobody.
        weight_bits: of the weights in the file; 32 for floating point. Activations have 8 bits
            where the weights are not in floating point.
        aware: whether the further training is quantization-aware.
    """

    start: str
    further: str | None
    weight_bits: int
    aware: bool = False


class Workshop:
    """Where float students are made into files.

    Args:
        room: the images and the teacher.
        setting: of the students.
        calibration: images from which the ranges of activations are read.
        cache: the directory that keeps the float students.
    """

    def __init__(
        self, room: Classroom, setting: Setting, calibration: np.ndarray, cache: Path
    ) -> None:
        self.room = room
        self.setting = setting
        self._calibration = calibration
        self._cache = cache

    def trial(self, way: Way, seed: int) -> dict[str, float]:
        """The accuracy of a file in percent, and its size in bytes."""
        file = self._file(way, seed)
        images, labels = self.room.scored
        keras.utils.clear_session()
        return {"accuracy": 100 * accuracy(file.predict(images), labels), "bytes": file.size}

    def _file(self, way: Way, seed: int) -> TFLiteModel:
        if way.aware:
            student = self._quantization_aware(self._float_student(way.start, seed), way)
            self._train_further(student, way.further, seed)
        else:
            student = self._float_student(way.start, seed, way.further)
        if way.weight_bits == 32:
            return tflite.convert(student)
        if way.weight_bits < 8 and not way.aware:
            # The converter rounds float students to 8 bits only. Quantization-aware and untrained,
            # a student is what rounding to fewer bits makes of it.
            student = self._quantization_aware(student, way)
        return tflite.convert(student, "int8", self._calibration)

    def _float_student(self, start: str, seed: int, further: str | None = None) -> keras.Model:
        """A student in float, from the cache where it has been trained before."""
        kind = self.setting.of_float_students(trained_further=further is not None)
        path = self._cache / f"student-{kind}-{start}-{further}-{seed}.keras"
        if not path.exists():
            if further is None:
                keras.utils.set_random_seed(seed)
                student = mobile_network(self.setting.channels)
                epochs, rate = self.setting.float_epochs, self.setting.float_learning_rate
                self._train(
                    student, "teacher" if start == "taught" else "labels", epochs, rate, seed
                )
            else:
                student = self._float_student(start, seed)
                self._train_further(student, further, seed)
            with replacing(path) as temporary:
                student.save(temporary)
        return keras.models.load_model(path, compile=False)

    def _quantization_aware(self, student: keras.Model, way: Way) -> Any:
        return compression.quantize_aware(student, self._calibration, weight_bits=way.weight_bits)

    def _train_further(self, student: Any, tutor: str, seed: int) -> None:
        epochs, rate = self.setting.further_epochs, self.setting.further_learning_rate
        # In other orders of the images than those that the student has seen.
        self._train(student, tutor, epochs, rate, seed + 1000)

    def _train(
        self, student: Any, tutor: str, epochs: int, learning_rate: float, seed: int
    ) -> None:
        """Train a student of either Keras on the labels, and on the teacher where it is the tutor.

        A weight of 1 for the labels leaves nothing to learn from the teacher.
        """
        keras.utils.set_random_seed(seed)
        distiller = keras_kd.Distiller(
            self.room.teacher,
            student,
            losses.SoftTargets(temperature=self.setting.temperature),
            student_loss_weight=self.setting.labels_weight if tutor == "teacher" else 1.0,
        )
        batches = self.room.batches(self.setting.images, epochs, seed)
        compile_classifier(distiller, learning_rate, len(batches))
        distiller.fit(batches, shuffle=False, verbose=0)


def mobile_network(channels: tuple[int, ...]) -> keras.Model:
    """A classifier of images of 28x28 as on phones: a convolution, then depthwise-separable ones.

    Every convolution is normalized and ends in a ReLU6, and each block halves the size.
    """
    inputs = keras.Input((28, 28, 1), name="image")
    first, *others = channels
    hidden = _normalized(layers.Conv2D(first, 3, 2, "same", use_bias=False), inputs)
    for count in others:
        hidden = _normalized(layers.DepthwiseConv2D(3, 2, "same", use_bias=False), hidden)
        hidden = _normalized(layers.Conv2D(count, 1, use_bias=False), hidden)
    hidden = layers.GlobalAveragePooling2D(name="embedding")(hidden)
    return keras.Model(inputs, layers.Dense(10, name="logits")(hidden), name="student")


def _normalized(convolution: keras.Layer, hidden: Any) -> Any:
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(convolution(hidden)))
