"""Cut a trained model down by low-rank factorization, and teach the rest what it has lost.

    python examples/factorize.py --output student.tflite

Prints what each layer saved and lost, and the accuracy and the size of the `.tflite` before, after
factorization and after distillation: expect an eighth of the size, an accuracy that falls from 97 %
to 70 % or so, and all but one or two points of it back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_kd


def classifier() -> keras.Model:
    """A CNN for digits, most of whose weights are in one Dense layer."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )


def main(argv: list[str] | None = None) -> dict[str, tuple[float, int]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, help="use only so many training images")
    parser.add_argument("--share", type=float, default=0.12, help="of the parameters to keep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("student.tflite"))
    options = parser.parse_args(argv)

    digits = keras_kd.data.load_sample().first(options.images, None)
    train = (digits.x_train, digits.y_train)

    keras.utils.set_random_seed(options.seed)
    teacher = classifier()
    teacher.compile("adam", "sparse_categorical_crossentropy")
    teacher.fit(*train, epochs=options.epochs, verbose=2)

    results = {}

    def report(step: str, model: keras.Model) -> keras_kd.tflite.TFLiteModel:
        file = keras_kd.tflite.convert(model, "float32")
        right = model.predict(digits.x_test, verbose=0).argmax(axis=-1) == digits.y_test
        results[step] = (float(np.mean(right)), file.size)
        return file

    report("teacher", teacher)
    student = keras_kd.compression.factorize(teacher, target_parameters=options.share)
    print(keras_kd.compression.summary(student, teacher))
    report("factorized", student)

    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.1)
    distiller.compile("adam", "sparse_categorical_crossentropy")
    distiller.fit(*train, epochs=options.epochs, verbose=2)
    report("distilled", student).save(options.output)

    for step, (accuracy, size) in results.items():
        print(f"{step:10} accuracy {accuracy:.4f}, {size:,} bytes")
    return results


if __name__ == "__main__":
    main()
