"""Prune a student while it is taught, then train it for 8 bits, then convert it for Android.

    python examples/prune_and_quantize.py --output student.tflite

Prints sparsity and accuracy after each step: expect 80 % of zeros after pruning and the same after
quantization-aware training, and the `.tflite` to be as accurate as the model it was made from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_kd


def classifier(filters: tuple[int, ...]) -> keras.Model:
    """A CNN for digits that ends in probabilities."""
    layers = [keras.Input((28, 28, 1), name="image")]
    for count in filters:
        layers += [keras.layers.Conv2D(count, 3, strides=2, padding="same", activation="relu")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential(layers)


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose most likely class is right."""
    return float(np.mean(probabilities.argmax(axis=-1) == labels))


def main(argv: list[str] | None = None) -> keras_kd.tflite.TFLiteModel:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, help="use only so many training images")
    parser.add_argument("--output", type=Path, default=Path("student.tflite"))
    options = parser.parse_args(argv)

    digits = keras_kd.data.load_sample().first(options.images, None)
    train = (digits.x_train, digits.y_train)

    keras.utils.set_random_seed(0)
    teacher = classifier((32, 64, 128))
    teacher.compile("adam", "sparse_categorical_crossentropy")
    teacher.fit(*train, epochs=options.epochs, verbose=2)

    def taught(student: keras.Model) -> keras.Model:
        distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.1)
        distiller.compile("adam", "sparse_categorical_crossentropy")
        distiller.fit(*train, epochs=options.epochs, verbose=2)
        return student

    def report(step: str, model: keras.Model, predictions: np.ndarray) -> None:
        zeros = keras_kd.compression.summary(model).sparsity
        print(f"{step}: {zeros:.1%} zeros, accuracy {accuracy(predictions, digits.y_test):.4f}")

    student = taught(classifier((8, 16)))
    report("distilled", student, student.predict(digits.x_test, verbose=0))

    pruned = taught(keras_kd.compression.prune(student, sparsity=0.8))
    report("pruned", pruned, pruned.predict(digits.x_test, verbose=0))

    quantized = taught(keras_kd.compression.quantize_aware(pruned, digits.x_train))
    report("quantization-aware", quantized, quantized.predict(digits.x_test, verbose=0))

    model = keras_kd.tflite.convert(quantized, "int8")
    model.save(options.output)
    report(f"{options.output} ({model.size} bytes)", quantized, model.predict(digits.x_test))
    return model


if __name__ == "__main__":
    main()
