"""Bring a trained Keras model to Android: a file that MediaPipe's ImageClassifier runs as it is.

    python examples/to_android.py --output digits.tflite

Prints size and accuracy of each form, and writes the int8 file with labels, normalization and
author in it; expect 95 % or more and less than 20 KB. docs/android.md shows the app.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_kd
from keras_kd import tflite
from keras_kd.tflite import android


def train(digits: keras_kd.data.Splits, epochs: int) -> keras.Model:
    """A student of grey images of 0..1, which ends in logits: they are what one distills from."""
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(0.003), loss)
    student.fit(digits.x_train, digits.y_train, epochs=epochs, verbose=2)
    return student


def main(argv: list[str] | None = None) -> tflite.TFLiteModel:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, help="use only so many images of each set")
    parser.add_argument("--output", type=Path, default=Path("digits.tflite"))
    options = parser.parse_args(argv)
    digits = keras_kd.data.load_sample().first(options.images, options.images)

    # MediaPipe hands over color images and shows probabilities.
    student = android.with_color_input(android.with_softmax(train(digits, options.epochs)))
    representative = np.repeat(digits.x_train, 3, axis=-1)
    x_test = np.repeat(digits.x_test, 3, axis=-1)

    mean, std = android.normalization(0, 1)
    metadata = android.Metadata(
        class_names=digits.class_names,
        name="Digits",
        description="Which digit a drawing of 28 by 28 pixels shows, white on black.",
        author="The keras_kd authors",
        license="Apache-2.0",
        version="1.0.0",
        mean=mean,
        std=std,
    )
    for quantization in ("float32", "float16", "dynamic_int8", "int8"):
        model = tflite.convert(student, quantization, representative, target="android")
        model = android.add_metadata(model, metadata)
        accuracy = np.mean(model.predict(x_test).argmax(axis=-1) == digits.y_test)
        print(f"{quantization:12} {model.size:7,} bytes {accuracy:7.1%} of {len(x_test)} images")

    model.save(options.output)
    print(f"wrote {options.output}: {model.inputs[0]} -> {model.outputs[0]}")
    print("it says of itself:", android.read_metadata(model))
    return model


if __name__ == "__main__":
    main()
