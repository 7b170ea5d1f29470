"""Teach one small student by three teachers at once.

    python examples/ensemble.py

A list of teachers is an ensemble: the student learns from the mean of their softened probabilities.
Prints test accuracies: of each teacher and of the three together, and of students taught by the
labels alone, by the first teacher and by all three, mean and standard error over the seeds. Expect
0.951 of a teacher, 0.956 of the three together, and of the students 0.927 +- 0.004 alone, 0.931 +-
0.003 by the first, 0.933 +- 0.006 by all: the order is right, the gains are near the noise.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

import keras_kd

BATCH_SIZE = 64


def classifier(filters: tuple[int, ...]) -> keras.Model:
    """A CNN for digits that ends in probabilities."""
    layers = [keras.Input((28, 28, 1))]
    for count in filters:
        layers += [
            keras.layers.Conv2D(count, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential(layers)


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=2000, help="for training")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(argv)
    digits = keras_kd.data.load_sample().first(options.images, None)
    train = (digits.x_train, digits.y_train)

    def fitted(model: keras.Model) -> keras.Model:
        steps = options.epochs * -(-len(digits.x_train) // BATCH_SIZE)
        learning_rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
        model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy")
        model.fit(*train, batch_size=BATCH_SIZE, epochs=options.epochs, verbose=0)
        return model

    def accuracy(*models: keras.Model) -> float:
        """That of the models' mean probabilities."""
        probabilities = sum(model.predict(digits.x_test, verbose=0) for model in models)
        return float(np.mean(probabilities.argmax(axis=-1) == digits.y_test))

    teachers = []
    for seed in range(3):
        keras.utils.set_random_seed(100 + seed)
        teachers.append(fitted(classifier((16, 32, 64))))
    accuracies = {
        "each teacher": [accuracy(teacher) for teacher in teachers],
        "all teachers": [accuracy(*teachers)],
    }

    students = {"alone": None, "by the first": teachers[0], "by all": teachers}
    for name, teacher in students.items():
        accuracies[name] = []
        for seed in range(options.seeds):
            keras.utils.set_random_seed(seed)
            student = classifier((4, 8, 16))
            learner = student
            if teacher is not None:
                learner = keras_kd.Distiller(teacher, student, student_loss_weight=0.1)
            fitted(learner)
            accuracies[name].append(accuracy(student))
    for name, values in accuracies.items():
        error = np.std(values) / np.sqrt(max(len(values) - 1, 1))
        print(f"{name:12} {np.mean(values):.4f} +- {error:.4f}")
    return accuracies


if __name__ == "__main__":
    main()
