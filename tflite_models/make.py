"""Make the students of this directory and their cards, from data that TFDS keeps on the disk.

    python tflite_models/make.py ~/tensorflow_datasets

For each subject a teacher is trained, teaches a student, and goes on teaching it while it is pruned
and prepared for 8 bits. Each form of the student is converted for each target, and what is on its
card is measured on the file itself. What has been trained is kept in `--cache`: a second run only
converts and measures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from cards import Card, Images, Lesson, described, write_cards
from teaching import CLOTHES, DIGITS, Classroom, Setting, Subject

import keras_kd
from keras_kd import tflite
from keras_kd.data import Splits
from keras_kd.metrics import accuracy
from keras_kd.tflite import TFLiteModel, android

SUBJECTS = {subject.name: subject for subject in (DIGITS, CLOTHES)}
TARGETS = ("android", "microcontroller", "web")
# What a student is called, which of the classroom's models it is, and how its numbers are stored.
FORMS = {
    "float32": ("distilled", "float32"),
    "int8": ("distilled", "int8"),
    "pruned_int8": ("pruned_quantized", "int8"),
}
BUNDLED_CLOTHES = 200
INPUT_RANGE = (0.0, 1.0)


def converted(student: Any, quantization: str, target: str, room: Classroom) -> TFLiteModel:
    """The file of a student for a target; for Android with color images in and metadata."""
    images = room.calibration
    if target == "android":
        student, images = android.with_color_input(student), in_color(images)
    model = tflite.convert(
        student, quantization, images, target, input_range=INPUT_RANGE, verification_data=images
    )
    return android.add_metadata(model, metadata(room)) if target == "android" else model


def metadata(room: Classroom) -> android.Metadata:
    """What a file for Android says of itself."""
    mean, std = android.normalization(*INPUT_RANGE)
    subject = room.subject
    return android.Metadata(
        room.dataset.class_names,
        name=subject.name,
        description=f"A distilled student that tells apart the {subject.name} of {subject.title}.",
        author="The keras_kd authors",
        license=f"Data: {subject.licence}, {subject.source}",
        version=keras_kd.__version__,
        mean=mean,
        std=std,
    )


def in_color(images: np.ndarray) -> np.ndarray:
    """Grey images in three equal channels."""
    return np.repeat(images, 3, axis=-1)


def bundled(subject: Subject, dataset: Splits, output: Path) -> Images:
    """The test images that are in this repository."""
    if subject is DIGITS:
        sample = keras_kd.data.load_sample()
        return Images("keras_kd/data/mnist_sample.npz", sample.x_test, sample.y_test)
    images, labels = dataset.x_test[:BUNDLED_CLOTHES], dataset.y_test[:BUNDLED_CLOTHES]
    path = output / subject.name / "examples.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.round(255 * images).astype("uint8")
    np.savez_compressed(path, x_test=pixels, y_test=labels.astype("uint8"))
    return Images(f"tflite_models/{subject.name}/{path.name}", images, labels)


def make(subject: Subject, room: Classroom, output: Path) -> Iterator[Card]:
    """Write the files of a subject and yield the card of each."""
    dataset = room.dataset
    lesson = Lesson(
        subject=subject,
        setting=room.setting,
        training_images=len(dataset.x_train),
        test=Images("TFDS", dataset.x_test, dataset.y_test),
        bundled=bundled(subject, dataset, output),
        teacher_weights=room.teacher.count_params(),
        teacher_accuracy=accuracy(
            room.teacher.predict(dataset.x_test, batch_size=500, verbose=0), dataset.y_test
        ),
    )
    for form, (name, quantization) in FORMS.items():
        student = getattr(room, name)
        for target in TARGETS:
            model = converted(student, quantization, target, room)
            path = model.save(output / subject.name / f"{form}_{target}.tflite")
            card = described(model, student, form, target, lesson)
            print(f"{path}: {card.bytes} bytes, {100 * card.accuracy:.2f} %", flush=True)
            yield card


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "data_dir",
        type=Path,
        nargs="?",
        help="of tensorflow-datasets (default: TFDS_DATA_DIR, or what TFDS uses)",
    )
    parser.add_argument(
        "--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), metavar="SUBJECT"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache/keras_kd",
        help="keeps teachers and students (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = parsed(arguments)
    # The same seeds then give the same weights.
    tf.config.experimental.enable_op_determinism()
    for name in options.subjects:
        subject = SUBJECTS[name]
        dataset = keras_kd.data.load(subject.data, options.data_dir)
        room = Classroom(dataset, subject, Setting(), options.cache)
        write_cards(list(make(subject, room, options.output)), options.output)


if __name__ == "__main__":
    main()
