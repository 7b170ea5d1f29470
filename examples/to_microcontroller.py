"""Bring a trained Keras model to a microcontroller: int8, checked in TFLM, as a folder to compile.

    python examples/to_microcontroller.py --output firmware

Prints the file's operators, its arena in TensorFlow Lite Micro, how its outputs compare with
LiteRT's (expect 100 % bit-equal), and how often the microcontroller and Keras agree: expect 99 % or
more. Needs the extra `micro`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_kd
from keras_kd.tflite import microcontroller

CLASS_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, help="use only so many images of each set")
    parser.add_argument("--output", type=Path, default=Path("firmware"))
    options = parser.parse_args(argv)
    digits = keras_kd.data.load_sample().first(options.images, options.images)

    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    student.compile("adam", "sparse_categorical_crossentropy")
    student.fit(digits.x_train, digits.y_train, epochs=options.epochs, verbose=2)

    model = keras_kd.tflite.convert(
        student, "int8", representative_data=digits.x_train, target="microcontroller"
    )
    on_device = microcontroller.run(model, digits.x_test)
    (scores,) = on_device.stored_outputs.values()
    in_keras = student.predict(digits.x_test, verbose=0)
    agreement = float(np.mean(scores.argmax(axis=-1) == in_keras.argmax(axis=-1)))

    print("operators:", ", ".join(f"{count} {name}" for name, count in model.operators.items()))
    print(f"{model.size} bytes of flash, {on_device.arena_bytes} bytes of arena")
    print(microcontroller.check_agreement(model, digits.x_test))
    print(f"agreement with Keras: {agreement:.1%} of {len(digits.x_test)} images")
    paths = microcontroller.write_project(
        model, options.output, "digits", digits.x_test[:50], class_names=CLASS_NAMES
    )
    for path in paths:
        print("wrote", path)
    return agreement


if __name__ == "__main__":
    main()
