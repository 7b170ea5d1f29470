"""Let a network teach another of its own kind, and that one the next: born-again networks.

    python examples/born_again.py

All generations have the same architecture and see the same digits; only the first learns from the
labels alone. Prints the test accuracy of each generation, and of all of them together. Expect no
steady gain on so few digits: 0.945 of the first teacher, 0.941 to 0.949 of the generations, 0.950
of all together.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import keras_kd

BATCH_SIZE = 64


def classifier() -> keras.Model:
    """A small CNN for digits that ends in probabilities."""
    layers = [keras.Input((28, 28, 1))]
    for count in (8, 16, 32):
        layers += [
            keras.layers.Conv2D(count, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential(layers)


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--generations", type=int, default=4, help="after the first teacher")
    parser.add_argument("--images", type=int, default=2000, help="for training")
    options = parser.parse_args(argv)
    digits = keras_kd.data.load_sample().first(options.images, None)
    train = (digits.x_train, digits.y_train)

    def fitted(model: keras.Model) -> keras.Model:
        steps = options.epochs * -(-len(digits.x_train) // BATCH_SIZE)
        learning_rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
        model.fit(*train, batch_size=BATCH_SIZE, epochs=options.epochs, verbose=0)
        return model

    def accuracy(probabilities: np.ndarray) -> float:
        return float(np.mean(probabilities.argmax(axis=-1) == digits.y_test))

    keras.utils.set_random_seed(0)
    first = fitted(classifier())
    said = [first.predict(digits.x_test, verbose=0)]
    accuracies = [accuracy(said[0])]
    print(f"first teacher  {accuracies[0]:.4f}")

    generations = keras_kd.teachers.born_again(
        first, lambda number: classifier(), options.generations
    )
    for number, teacher, student in generations:
        fitted(keras_kd.Distiller(teacher, student, student_loss_weight=0.5))
        said.append(student.predict(digits.x_test, verbose=0))
        accuracies.append(accuracy(said[-1]))
        print(f"generation {number}   {accuracies[-1]:.4f}")
    print(f"all together   {accuracy(sum(said)):.4f}")
    return accuracies


if __name__ == "__main__":
    main()
