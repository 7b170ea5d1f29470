"""One way of training in a process of its own, and the most memory that it held.

    python benchmarks/memory_modes.py MODE SETTING DIRECTORY

is what `memory.py` runs: it prints one line of JSON. `DIRECTORY` keeps what the mode `store` and
the mode `store features` leave for those that read it.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_kd

CLASSES = 100
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Setting:
    """Sizes that all modes have in common.

    Attributes:
        teacher: the name of a class of `keras.applications`, or "small" for a few convolutions.
        image: shape of an example.
        batch_size: examples in a step.
        steps: how many steps are taken.
        store_megabytes: how large the store of features is.
        features: shape of an example's features in it.
    """

    teacher: str = "ResNet50"
    image: tuple[int, int, int] = (96, 96, 3)
    batch_size: int = 64
    steps: int = 3
    store_megabytes: int = 1000
    features: tuple[int, ...] = (7, 7, 512)

    @property
    def stored_examples(self) -> int:
        """How many examples' features, two bytes for a number, the store holds."""
        return max(1, int(self.store_megabytes * 1e6 / (2 * math.prod(self.features))))


class Workplace:
    """What a mode works with.

    Args:
        setting: the sizes.
        directory: where stores are.
    """

    def __init__(self, setting: Setting, directory: Path) -> None:
        self.setting = setting
        self.directory = directory

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels, the same in every process."""
        generator = np.random.default_rng(0)
        examples = self.setting.batch_size * self.setting.steps
        images = generator.random((examples, *self.setting.image), dtype="float32")
        return images, generator.integers(0, CLASSES, examples)

    def teacher(self) -> keras.Model:
        """A large model with untrained weights: what it says does not change what it takes."""
        keras.utils.set_random_seed(0)
        if self.setting.teacher == "small":
            return _convolutions(self.setting.image, (32, 32, 32))
        return getattr(keras.applications, self.setting.teacher)(
            weights=None,
            input_shape=self.setting.image,
            classes=CLASSES,
            classifier_activation=None,
        )

    def student(self) -> keras.Model:
        """A small model."""
        keras.utils.set_random_seed(1)
        return _convolutions(self.setting.image, (8, 16, 32))

    def fit(self, learner: keras.Model, batches: tf.data.Dataset) -> None:
        """Train for the setting's steps."""
        # Compiling with XLA takes more memory than the training of small models.
        learner.compile(
            "adam",
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        learner.fit(batches, verbose=0)

    def batches(self) -> tf.data.Dataset:
        """The data in batches."""
        return tf.data.Dataset.from_tensor_slices(self.data()).batch(self.setting.batch_size)


def imports(place: Workplace) -> None:
    """Nothing but what has been imported."""


def inference(place: Workplace) -> None:
    """The teacher alone, asked as in inference."""
    teacher = place.teacher()
    ask = tf.function(lambda images: teacher(images, training=False))
    for images, _ in place.batches():
        ask(images)


def alone(place: Workplace) -> None:
    """The student on the labels."""
    place.fit(place.student(), place.batches())


def ours(place: Workplace) -> None:
    """keras_kd.Distiller with the teacher in every step."""
    place.fit(keras_kd.Distiller(place.teacher(), place.student()), place.batches())


def theirs(place: Workplace) -> None:
    """keras.distillation.Distiller."""
    soft = keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence())
    distiller = keras.distillation.Distiller(place.teacher(), place.student(), soft)
    place.fit(distiller, place.batches())


def teacher_training(place: Workplace) -> None:
    """Training the teacher itself: what keeping its activations for gradients takes."""
    place.fit(place.teacher(), place.batches())


def store(place: Workplace) -> None:
    """Writing the teacher's outputs."""
    keras_kd.teachers.StoredTeacher.create(
        place.teacher(),
        place.data(),
        place.directory / "outputs",
        batch_size=place.setting.batch_size,
    )


def stored(place: Workplace) -> None:
    """keras_kd.Distiller with the teacher's outputs from the store."""
    teacher = keras_kd.teachers.StoredTeacher(place.directory / "outputs")
    distiller = keras_kd.Distiller(teacher, place.student())
    place.fit(distiller, teacher.join(place.data(), batch_size=place.setting.batch_size))


def store_features(place: Workplace) -> None:
    """Writing features that come batch by batch."""
    keras_kd.teachers.StoredTeacher.from_outputs(
        _feature_batches(place.setting), place.directory / "features"
    )


def read_features(place: Workplace) -> None:
    """Reading all features once, shuffled, in batches, as training reads them."""
    teacher = keras_kd.teachers.StoredTeacher(place.directory / "features")
    teacher.tap(["features"])
    x = np.zeros((len(teacher), 1), "float32")
    for _ in teacher.join(x, batch_size=place.setting.batch_size):
        pass


MODES: dict[str, Callable[[Workplace], None]] = {
    "imports": imports,
    "teacher inference": inference,
    "student alone": alone,
    "keras_kd, online teacher": ours,
    "keras.distillation": theirs,
    "store": store,
    "keras_kd, stored teacher": stored,
    "training the teacher": teacher_training,
    "store features": store_features,
    "read features, shuffled": read_features,
}


class PeakMemory:
    """Watches, while it is open, what memory this process holds.

    The system keeps the peak of all resident pages itself (`VmHWM`). Of how these split into the
    process's own (`RssAnon`) and pages of files, which the system takes back when it needs the
    memory, it tells the present only: a thread looks every few milliseconds.
    """

    def __init__(self) -> None:
        self.own = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.own = max(self.own, memory_status().get("RssAnon", 0))


def memory_status() -> dict[str, int]:
    """What Linux says of the memory of this process, in bytes; elsewhere nothing."""
    if not STATUS.exists():
        return {}
    lines = (line.split() for line in STATUS.read_text(encoding="ascii").splitlines())
    return {words[0][:-1]: int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def peak_bytes() -> int:
    """The most memory that this process has held so far, mapped files included."""
    # Linux hands ru_maxrss down: it would be the peak of the process that started this one.
    peak = memory_status().get("VmHWM")
    # macOS counts ru_maxrss in bytes.
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(mode: str, place: Workplace) -> dict[str, float]:
    """Run a mode in this process; bytes and seconds."""
    start = time.perf_counter()
    with PeakMemory() as peak:
        MODES[mode](place)
    return {
        "peak": peak_bytes(),
        "own": max(peak.own, memory_status().get("RssAnon", 0)),
        "seconds": time.perf_counter() - start,
    }


def activation_bytes(model: keras.Model, batch_size: int) -> int:
    """What all layers of a model say of a batch, in float32."""
    outputs = (layer.output for layer in model.layers)
    return sum(4 * batch_size * math.prod(output.shape[1:]) for output in outputs)


def teacher_bytes(place: Workplace) -> dict[str, int]:
    """How large the teacher's weights and its activations on a batch are."""
    teacher = place.teacher()
    return {
        "weights": 4 * teacher.count_params(),
        "activations": activation_bytes(teacher, place.setting.batch_size),
    }


def _convolutions(image: tuple[int, int, int], channels: tuple[int, ...]) -> keras.Model:
    inputs = hidden = keras.Input(image)
    for count in channels:
        hidden = keras.layers.Conv2D(count, 3, strides=2, padding="same")(hidden)
        hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden))


def _feature_batches(setting: Setting, size: int = 64) -> Iterator[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    for start in range(0, setting.stored_examples, size):
        count = min(size, setting.stored_examples - start)
        yield {"features": generator.random((count, *setting.features), dtype="float32")}


def main(mode: str, setting: str, directory: str) -> None:
    place = Workplace(Setting(**json.loads(setting)), Path(directory))
    result = teacher_bytes(place) if mode == "teacher" else measure(mode, place)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
