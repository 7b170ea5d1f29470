"""Teach a small digit classifier by a larger one, in plain Keras code.

    python examples/distill_digits.py

Prints the test accuracy of the teacher, of a student that learned from the labels alone, and of
the same student taught by the teacher: expect the last between the other two.
"""

from __future__ import annotations

import argparse

import keras

import keras_kd


def classifier(filters: tuple[int, ...], name: str) -> keras.Model:
    """A CNN for digits that ends in probabilities."""
    layers = [keras.Input((28, 28, 1))]
    for count in filters:
        layers += [keras.layers.Conv2D(count, 3, strides=2, padding="same", activation="relu")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential(layers, name=name)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, help="use only so many training images")
    options = parser.parse_args(argv)

    digits = keras_kd.data.load_sample().first(options.images, None)
    train, test = (digits.x_train, digits.y_train), (digits.x_test, digits.y_test)
    compile_options = {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }

    keras.utils.set_random_seed(0)
    teacher = classifier((32, 64, 128), "teacher")
    teacher.compile(**compile_options)
    teacher.fit(*train, epochs=options.epochs, verbose=2)

    alone = classifier((4, 8), "alone")
    student = keras.models.clone_model(alone)
    student.set_weights(alone.get_weights())
    alone.compile(**compile_options)
    alone.fit(*train, epochs=options.epochs, verbose=2)

    distiller = keras_kd.Distiller(teacher, student, student_loss_weight=0.1)
    distiller.compile(**compile_options)
    distiller.fit(*train, epochs=options.epochs, verbose=2)
    student.compile(**compile_options)

    accuracies = {
        name: model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
        for name, model in (("teacher", teacher), ("alone", alone), ("distilled", student))
    }
    for name, accuracy in accuracies.items():
        print(f"{name:10} {accuracy:.4f}")
    return accuracies


if __name__ == "__main__":
    main()
