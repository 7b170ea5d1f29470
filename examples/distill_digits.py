"""Teach a small digit classifier by a larger one, in plain Keras code.

    python examples/distill_digits.py

Prints the test accuracy of the teacher, of a student that learned from the labels alone, and of
the same student taught by the teacher: expect the last between the other two.
"""

from __future__ import annotations

import argparse

import keras

import keras_kd

BATCH_SIZE = 64


def classifier(filters: tuple[int, ...], name: str) -> keras.Model:
    """A CNN for digits that ends in probabilities."""
    layers = [keras.Input((28, 28, 1))]
    for count in filters:
        layers += [
            keras.layers.Conv2D(count, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential(layers, name=name)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, help="use only so many training images")
    options = parser.parse_args(argv)

    digits = keras_kd.data.load_sample().first(options.images, None)
    train, test = (digits.x_train, digits.y_train), (digits.x_test, digits.y_test)

    def compiled(model: keras.Model) -> keras.Model:
        steps = options.epochs * -(-len(digits.x_train) // BATCH_SIZE)
        learning_rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
        model.compile(
            keras.optimizers.Adam(learning_rate),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    keras.utils.set_random_seed(0)
    fit_options = {"batch_size": BATCH_SIZE, "epochs": options.epochs, "verbose": 2}
    teacher = compiled(classifier((32, 64, 128), "teacher"))
    teacher.fit(*train, **fit_options)

    alone = classifier((8, 16, 16), "alone")
    student = keras.models.clone_model(alone)
    student.set_weights(alone.get_weights())
    compiled(alone).fit(*train, **fit_options)

    distiller = compiled(keras_kd.Distiller(teacher, student, student_loss_weight=0.1))
    distiller.fit(*train, **fit_options)

    accuracies = {
        name: model.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
        for name, model in (("teacher", teacher), ("alone", alone), ("distilled", distiller))
    }
    for name, accuracy in accuracies.items():
        print(f"{name:10} {accuracy:.4f}")
    return accuracies


if __name__ == "__main__":
    main()
