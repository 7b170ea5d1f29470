"""Make a student small in five steps, each taught by the teacher, then convert it for Android.

    python examples/compress_in_steps.py --output student.tflite --directory compress-in-steps

Prints a row for each step. Stopped and called again with the same directory, it goes on after the
last step that was finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_kd
from keras_kd.compression import Step


def classifier(filters: tuple[int, ...], units: int) -> keras.Model:
    """A CNN for digits that ends in probabilities."""
    layers = [keras.Input((28, 28, 1), name="image")]
    for count in filters:
        layers += [
            keras.layers.Conv2D(count, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(units, activation="relu", name="hidden"),
        keras.layers.Dense(10, activation="softmax", name="probabilities"),
    ]
    return keras.Sequential(layers)


def main(argv: list[str] | None = None) -> keras_kd.compression.PipelineResult:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, help="use only so many training images")
    parser.add_argument("--output", type=Path, default=Path("student.tflite"))
    parser.add_argument("--directory", type=Path, help="where finished steps are kept")
    options = parser.parse_args(argv)

    digits = keras_kd.data.load_sample().first(options.images, None)
    train, epochs = (digits.x_train, digits.y_train), options.epochs

    keras.utils.set_random_seed(0)
    teacher = classifier((32, 64), 128)
    teacher.compile("adam", "sparse_categorical_crossentropy")
    teacher.fit(*train, epochs=epochs, verbose=2)

    distiller = keras_kd.Distiller(teacher, classifier((16, 32), 64), student_loss_weight=0.1)
    distiller.compile(
        keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    distiller.fit(*train, epochs=epochs, verbose=2)

    result = keras_kd.compression.pipeline(
        [
            Step("factorize", epochs, energy=0.9, layers="hidden"),
            Step("remove_filters", epochs, share=0.25),
            Step("prune", epochs, sparsity=0.7),
            Step("cluster", epochs, learning_rate=3e-4, num_clusters=16),
            Step("quantize_aware", epochs, learning_rate=3e-4, input_range=(0, 1)),
        ],
        distiller,
        *train,
        validation_data=(digits.x_test, digits.y_test),
        directory=options.directory,
        verbose=2,
    )
    model = keras_kd.tflite.convert(result.student, "int8", digits.x_train)
    model.save(options.output)
    right = np.mean(model.predict(digits.x_test).argmax(axis=-1) == digits.y_test)
    print(
        f"{options.output}: {model.size:,} bytes, {model.compressed_size:,} after gzip, "
        f"accuracy {right:.4f}"
    )
    return result


if __name__ == "__main__":
    main()
