"""What MediaPipe's ImageClassifier takes, checked before a phone refuses it."""

from __future__ import annotations

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.android.metadata import CHANNELS, Metadata
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

# What MediaPipe can fill and read.
_DTYPES = (np.dtype("float32"), np.dtype("uint8"))
# Pixels that are scaled in another way than the data of calibration differ by 127 times or more;
# images of one data set that happen to be dark or bright differ by less than this.
_MOST_RATIO = 16
_RANDOM_IMAGES = 16
_TOLERANCE = 1e-3


def check_classifier(model: TFLiteModel, metadata: Metadata) -> None:
    """Refuse what MediaPipe would refuse, or run with results that mean nothing.

    Args:
        model: a file.
        metadata: what is to be written into it.

    Raises:
        ValueError: as `add_metadata` says.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            problem(
                f"a model with {len(model.inputs)} inputs and {len(model.outputs)} outputs",
                "an image classifier: one image in, the scores of its classes out",
                "convert keras.Model(image, scores) alone",
            )
        )
    (image,), (scores,) = model.inputs, model.outputs
    for tensor in (image, scores):
        _check_dtype(tensor)
    _check_image(image)
    _check_classes(scores, metadata)
    _check_normalization(model, metadata)
    _check_scores(model, metadata)


def _check_dtype(tensor: TensorInfo) -> None:
    if tensor.dtype not in _DTYPES:
        raise ValueError(
            problem(
                f"a model whose tensor {tensor.name!r} is {tensor.dtype}",
                "float32 (or uint8), which MediaPipe can fill and read",
                "convert with target='android', which keeps inputs and outputs in float32 while "
                "int8 computes inside",
            )
        )


def _check_image(image: TensorInfo) -> None:
    if len(image.shape) != 4:
        raise ValueError(
            problem(
                f"a model with the input {image}",
                "images of shape (1, height, width, 3)",
                "add keras.layers.Reshape in front of the student's first layer; "
                "keras_kd.tflite.android.with_color_input(student) does it for grey-scale images",
            )
        )
    if None in image.shape:
        raise ValueError(
            problem(
                f"a model with the input {image}",
                "a known height and width, to which MediaPipe scales images",
                "build the student on an Input with them, for example keras.Input((224, 224, 3))",
            )
        )
    if image.shape[-1] != CHANNELS:
        raise ValueError(
            problem(
                f"a model with the input {image}",
                "three channels, red, green and blue, in which MediaPipe hands images over",
                "convert keras_kd.tflite.android.with_color_input(student), which makes grey of "
                "them",
            )
        )


def _check_classes(scores: TensorInfo, metadata: Metadata) -> None:
    classes = scores.shape[-1] if scores.shape else 0
    if scores.shape != (1, classes) or classes != len(metadata.labels):
        raise ValueError(
            problem(
                f"{len(metadata.labels)} labels for the output {scores}",
                f"an output of shape (1, classes) and a label for each class, here {classes}",
                "pass the labels that the student was trained on, in the order of its outputs",
            )
        )


def _check_normalization(model: TFLiteModel, metadata: Metadata) -> None:
    """Compare with the numbers that the file can tell apart, where it says which these are."""
    (limits,) = model.flatbuffer.input_ranges()
    if limits is None or model.inputs[0].dtype != np.float32:
        return
    darkest, brightest = (_normalized(np.full((1, 1, CHANNELS), p), metadata) for p in (0, 255))
    low, high = min(darkest.min(), brightest.min()), max(darkest.max(), brightest.max())
    ratio = max(abs(low), abs(high)) / max(map(abs, limits))
    if not 1 / _MOST_RATIO < ratio < _MOST_RATIO:
        raise ValueError(
            problem(
                f"mean={metadata.mean} and std={metadata.std}, which bring pixels to {low:g} to "
                f"{high:g}",
                f"about {limits[0]:g} to {limits[1]:g}, what the file was calibrated on",
                "pass mean and std of keras_kd.tflite.android.normalization(low, high) with the "
                "range that the student was trained on",
            )
        )


def _check_scores(model: TFLiteModel, metadata: Metadata) -> None:
    """Logits run as well, and are shown as if they were probabilities."""
    (scores,) = _on_random_pixels(model, metadata).values()
    if scores.min() < -_TOLERANCE or scores.max() > 1 + _TOLERANCE:
        raise ValueError(
            problem(
                f"a model whose outputs go from {scores.min():g} to {scores.max():g}",
                "scores of 0..1, which MediaPipe shows as they are",
                "convert keras_kd.tflite.android.with_softmax(student), or end it in a Softmax "
                "layer",
            )
        )


def _on_random_pixels(model: TFLiteModel, metadata: Metadata) -> dict[str, np.ndarray]:
    """What the model says of random images that are handed over as MediaPipe does it."""
    image = model.inputs[0]
    shape = (_RANDOM_IMAGES, *image.shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if image.dtype != np.uint8:
        return model.predict_by_name(_normalized(pixels, metadata))
    # A file that stores pixels as they are knows itself what they stand for.
    stored = model.run_stored({image.name: pixels})
    return {tensor.name: tensor.dequantize(stored[tensor.name]) for tensor in model.outputs}


def _normalized(pixels: np.ndarray, metadata: Metadata) -> np.ndarray:
    mean, std = np.asarray(metadata.mean), np.asarray(metadata.std)
    return ((pixels - mean) / std).astype(np.float32)
