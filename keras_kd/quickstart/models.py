"""The teacher and the student of the quickstart."""

from __future__ import annotations

import keras
from keras import layers


def build_teacher(image_shape: tuple[int, ...], number_of_classes: int) -> keras.Model:
    """A convolutional network with about 100 000 weights for images of 28x28."""
    return keras.Sequential(
        [
            keras.Input(image_shape, name="image"),
            *_convolution(16),
            layers.MaxPooling2D(),
            *_convolution(32),
            layers.MaxPooling2D(),
            *_convolution(128),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(number_of_classes),
            layers.Softmax(name="probabilities"),
        ],
        name="teacher",
    )


def build_student(image_shape: tuple[int, ...], number_of_classes: int) -> keras.Model:
    """A network of the kind that fits a microcontroller: about 6 000 weights."""
    return keras.Sequential(
        [
            keras.Input(image_shape, name="image"),
            *_convolution(8, strides=2),
            *_convolution(16, strides=2),
            *_convolution(16, strides=2),
            layers.Flatten(),
            layers.Dense(number_of_classes),
            layers.Softmax(name="probabilities"),
        ],
        name="student",
    )


def _convolution(filters: int, strides: int = 1) -> list[keras.Layer]:
    """A convolution whose normalization and activation the converter folds into it."""
    return [
        layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
    ]
