"""Students in the form that Android's libraries require: color images in, scores out."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import keras
import numpy as np

from keras_kd._checks import problem
from keras_kd._keras import check_model, is_keras_model, tf_keras
from keras_kd.tflite.android.metadata import CHANNELS, per_channel
from keras_kd.tflite.student import Signature, prepared
from keras_kd.tflite.tensors import TensorInfo

_RANDOM_EXAMPLES = 16
# For sizes that a student leaves open, such as the length of a sequence.
_ANY_SIZE = 32
_TOLERANCE = 1e-3


def with_color_input(student: Any) -> Any:
    """A grey-scale student as a model of color images, the form in which MediaPipe passes them.

    Before the student comes a fixed 1x1 convolution with the weights 1/3: grey is the mean of
    red, green and blue, so a grey image in three equal channels gives what it gave before.

    The range of this convolution is unknown in a quantization-aware student: convert it with
    `representative_data` of color images, such as `numpy.repeat(x_train, 3, axis=-1)`.

    Args:
        student: a Keras 3 or tf_keras model of images of shape (height, width, 1) or
            (height, width). Its weights are shared, not copied, unless it is in mixed precision.

    Returns:
        A model of the same Keras, of images of shape (height, width, 3) in the same range of
        values. Its input and its output keep their names.

    Raises:
        ValueError: if the student takes anything else, or has several outputs.
    """
    signature = prepared(check_model("student", student))
    library = _library(student)
    image = _only_input(signature)
    if len(image.shape) not in (3, 4) or image.shape[3:] not in ((), (1,)) or None in image.shape:
        raise problem(
            f"a student with the input {image}",
            "grey-scale images of shape (height, width, 1) or (height, width), both known",
            "convert a student of color images as it is",
        )
    size = image.shape[1:3]
    color = library.Input((*size, CHANNELS), name=image.name)
    grey = library.layers.Conv2D(
        1,
        1,
        use_bias=False,
        kernel_initializer=library.initializers.Constant(1 / CHANNELS),
        trainable=False,
        dtype="float32",
        name="mean_of_channels",
    )(color)
    if len(image.shape) == 3:
        grey = library.layers.Reshape(size, name="without_channels")(grey)
    name, output = _only_output(signature, grey)
    # It costs nothing in the file, and gives the output its name.
    output = library.layers.Activation("linear", name=name)(output)
    return library.Model(color, output, name=student.name)


def with_normalization(
    student: Any, mean: float | Sequence[float], std: float | Sequence[float]
) -> Any:
    """A student of normalized images as a model of pixels of 0..255.

    Before the student comes `(pixel - mean) / std` for each channel: two operators in the
    file, MUL and ADD. MediaPipe itself subtracts and divides by one number for all channels only.
    Calibrate and feed pixels of 0..255, and write metadata without mean and std.

    The range of the pixels is unknown in a quantization-aware student: convert it with
    `representative_data`.

    Args:
        student: a Keras 3 or tf_keras model of color images of shape (height, width, 3). Its
            weights are shared, not copied, unless it is in mixed precision.
        mean: one number, or one each for red, green and blue, on the scale of 0..255: of a student
            of `(x / 255 - m) / s`, `255 * m`.
        std: what is divided by, likewise: `255 * s`.

    Returns:
        A model of the same Keras. Its input and its output keep their names.

    Raises:
        TypeError: if mean or std are no numbers.
        ValueError: if they are neither one nor three, if a standard deviation is not above 0, or
            if the student takes anything else or has several outputs.
    """
    mean, std = per_channel("mean", mean), per_channel("std", std, above=0.0)
    signature = prepared(check_model("student", student))
    library = _library(student)
    image = _only_input(signature)
    if len(image.shape) != 4 or image.shape[-1] != CHANNELS:
        raise problem(
            f"a student with the input {image}",
            "color images of shape (height, width, 3)",
            "for grey-scale images one mean and one std suffice: pass them to Metadata",
        )
    pixels = library.Input(image.shape[1:], name=image.name)
    scale, offset = (
        np.broadcast_to(values, CHANNELS).astype("float32")
        for values in (1 / np.array(std), -np.array(mean) / std)
    )
    # By it, images from directories are left at 0..255.
    normalized = library.layers.Rescaling(
        scale.tolist(), offset.tolist(), dtype="float32", name="normalization"
    )(pixels)
    name, output = _only_output(signature, normalized)
    output = library.layers.Activation("linear", name=name)(output)
    return library.Model(pixels, output, name=student.name)


def with_softmax(student: Any) -> Any:
    """A student of logits as a model of probabilities, which is what MediaPipe shows.

    Args:
        student: a Keras 3 or tf_keras model with one input, and the logits of at least two classes
            along the last axis of its output. Its weights are shared, not copied, unless it is in
            mixed precision.

    Returns:
        A model of the same Keras that ends in a Softmax layer. Its input keeps its name, its output
        is called "scores".

    Raises:
        ValueError: if the outputs are probabilities already, or not those of several classes.
    """
    signature = prepared(check_model("student", student))
    library = _library(student)
    inputs = _only_input(signature)
    tensor = library.Input(inputs.shape[1:], name=inputs.name, dtype=inputs.dtype.name)
    _, logits = _only_output(signature, tensor)
    _check_logits(logits, signature, inputs)
    scores = library.layers.Softmax(dtype="float32", name="scores")(logits)
    return library.Model(tensor, scores, name=student.name)


def _library(student: Any) -> ModuleType:
    return keras if is_keras_model(student) else tf_keras()


def _only_input(signature: Signature) -> TensorInfo:
    if signature.states:
        raise problem(
            f"the student {signature.model.name!r} with stateful=True in a layer",
            "a student whose outputs follow from its inputs alone",
            "put the layers into the student where it is built, such as keras.layers.Softmax()",
        )
    if len(signature.inputs) != 1:
        raise problem(
            f"a student with {len(signature.inputs)} inputs",
            "an image classifier, with one",
            "take the part that looks at the image: keras.Model(image, scores)",
        )
    return signature.inputs[0]


def _only_output(signature: Signature, tensor: Any) -> tuple[str, Any]:
    outputs = signature({signature.inputs[0].name: tensor})
    if len(outputs) != 1:
        raise problem(
            f"a student with the outputs {', '.join(outputs)}",
            "an image classifier, with one",
            "take the part that classifies: keras.Model(student.input, student.output[0])",
        )
    return next(iter(outputs.items()))


def _check_logits(logits: Any, signature: Signature, inputs: TensorInfo) -> None:
    if len(logits.shape) < 2 or logits.shape[-1] < 2:
        raise problem(
            f"a student with an output of shape {tuple(logits.shape)}",
            "at least two classes along its last axis: a softmax over one is always 1",
            "end a student of one score in a Dense layer with activation='sigmoid'",
        )
    shape = (_RANDOM_EXAMPLES, *(size or _ANY_SIZE for size in inputs.shape[1:]))
    examples = np.random.default_rng(0).random(shape).astype(inputs.dtype)
    (values,) = (np.asarray(output) for output in signature({inputs.name: examples}).values())
    if values.min() >= 0 and np.allclose(values.sum(axis=-1), 1, atol=_TOLERANCE):
        raise problem(
            f"the student {signature.model.name!r}, whose outputs are probabilities already",
            "logits",
            "convert it as it is: a second softmax would make the scores almost equal",
        )
