"""Checks of what MediaPipe's tasks require of a file."""

from __future__ import annotations

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.android.metadata import CHANNELS, Metadata, per_channel
from keras_kd.tflite.android.vocabulary import check_text
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

# The inputs for which it has tasks that run what Keras models become.
_IN_MEDIAPIPE = ("image", "audio")
# What MediaPipe can fill and read; recordings as the first alone.
_DTYPES = (np.dtype("float32"), np.dtype("uint8"))
# Pixels that are scaled in another way than the data of calibration differ by 127 times or more;
# images of one data set that happen to be dark or bright differ by less than this.
_MOST_RATIO = 16
_RANDOM_IMAGES = 16
_TOLERANCE = 1e-3


def check_classifier(model: TFLiteModel, metadata: Metadata, kind: str) -> None:
    """Refuse what MediaPipe would refuse, or run with results that mean nothing.

    Args:
        model: a file.
        metadata: the metadata for it.
        kind: what its input is, of `INPUT_KINDS`.

    Raises:
        ValueError: as `add_metadata`.
    """
    if model.state_outputs:
        raise problem(
            f"class_names for a model of a stream with the states {', '.join(model.state_outputs)}",
            "a classifier whose scores follow from one input: no task of MediaPipe feeds states",
            "leave class_names out, and feed the states in the app",
        )
    if len(model.outputs) != 1 or (len(model.inputs) != 1 and kind in _IN_MEDIAPIPE):
        raise problem(
            f"class_names for a model with {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs",
            "a classifier: one image or recording in, the scores of its classes out",
            "convert keras.Model(image, scores) alone, or leave class_names out: metadata of "
            "detection, with anchors of boxes, are not written",
        )
    (scores,) = model.outputs
    _check_classes(scores, metadata, kind)
    if kind != "image" and (metadata.mean, metadata.std) != ((0.0,), (1.0,)):
        raise problem(
            f"mean={metadata.mean} and std={metadata.std} for an input of {kind}",
            "neither: they are for the pixels of images",
            "leave them out, and scale what the app feeds as the student was trained",
        )
    if kind == "text" and metadata.vocabulary is not None:
        check_text(model, metadata.vocabulary)
        _check_dtype(scores, kind)
        _check_scores(model, metadata, kind)
    if kind not in _IN_MEDIAPIPE:
        return
    (read,) = model.inputs
    for tensor in (read, scores):
        _check_dtype(tensor, kind)
    if kind == "audio":
        _check_recording(read)
    else:
        _check_image(read)
        _check_one_normalization(metadata)
        _check_normalization(model, metadata)
    _check_scores(model, metadata, kind)


def _check_dtype(tensor: TensorInfo, kind: str) -> None:
    dtypes = _DTYPES if kind == "image" else _DTYPES[:1]
    if tensor.dtype not in dtypes:
        raise problem(
            f"a model whose tensor {tensor.name!r} is {tensor.dtype}",
            f"{' or '.join(map(str, dtypes))}, which MediaPipe can fill and read",
            "convert with target='android' and without input_type and output_type, which keeps "
            "inputs and outputs in float32 while int8 computes inside",
        )


def _check_recording(recording: TensorInfo) -> None:
    if len(recording.shape) != 2 or None in recording.shape:
        raise problem(
            f"a model with the input {recording} and a sample rate",
            "recordings of shape (1, samples), as they come from a microphone",
            "add keras.layers.Reshape in front of the student's first layer; for spectrograms "
            "leave sample_rate out and pass input_kind='numbers'",
        )


def _check_image(image: TensorInfo) -> None:
    if len(image.shape) != 4:
        raise problem(
            f"a model with the input {image}",
            "images of shape (1, height, width, 3)",
            "add keras.layers.Reshape in front of the student's first layer; "
            "keras_kd.tflite.android.with_color_input(student) does it for grey-scale images. "
            "If it is no image, pass input_kind='numbers'",
        )
    if None in image.shape:
        raise problem(
            f"a model with the input {image}",
            "a known height and width, to which MediaPipe scales images",
            "build the student on an Input with them, for example keras.Input((224, 224, 3))",
        )
    if image.shape[-1] != CHANNELS:
        raise problem(
            f"a model with the input {image}",
            "three channels, red, green and blue, in which MediaPipe hands images over",
            "convert keras_kd.tflite.android.with_color_input(student), which makes grey of them",
        )


def _check_classes(scores: TensorInfo, metadata: Metadata, kind: str) -> None:
    classes = scores.shape[-1] if scores.shape else 0
    ranks = {"image": (2, 4), "audio": (2,)}.get(kind, range(2, 9))
    if len(scores.shape) not in ranks or classes != len(metadata.class_names):
        segments = " (or (1, height, width, classes) for segments)" if kind == "image" else ""
        raise problem(
            f"{len(metadata.class_names)} class names for the output {scores}",
            f"an output of shape (1, classes){segments} and a name for each class, here {classes}",
            "pass the names that the student was trained on, in the order of its outputs, or "
            "leave class_names out",
        )
    if len(scores.shape) > 2 and metadata.score_calibration is not None:
        raise problem(
            f"a score calibration for the output {scores}",
            "an output of shape (1, classes)",
            "leave score_calibration out",
        )


def _check_one_normalization(metadata: Metadata) -> None:
    for name, given in (("mean", metadata.mean), ("std", metadata.std)):
        values = per_channel(name, given)
        if len(set(values)) > 1:
            raise problem(
                f"{name}={values}, which differs by channel",
                "one number for all channels: MediaPipe has no other normalization",
                "convert keras_kd.tflite.android.with_normalization(student, mean, std), a "
                "student of pixels of 0..255, and leave mean and std out",
            )


def _check_normalization(model: TFLiteModel, metadata: Metadata) -> None:
    """Compare with the numbers that the file distinguishes, where it stores which these are."""
    (limits,) = model.flatbuffer.input_ranges()
    if limits is None or model.inputs[0].dtype != np.float32:
        return
    low, high = _normalized(np.array([0, 255]), metadata)
    ratio = max(abs(low), abs(high)) / max(map(abs, limits))
    if not 1 / _MOST_RATIO < ratio < _MOST_RATIO:
        raise problem(
            f"mean={metadata.mean} and std={metadata.std}, which bring pixels to {low:g} to "
            f"{high:g}",
            f"about {limits[0]:g} to {limits[1]:g}, what the file was calibrated on",
            "pass mean and std of keras_kd.tflite.android.normalization(low, high) with the "
            "range that the student was trained on",
        )


def _check_scores(model: TFLiteModel, metadata: Metadata, kind: str) -> None:
    """Logits run as well, and are shown as if they were probabilities."""
    run = {
        "image": _on_random_pixels,
        "audio": _on_random_recordings,
        "text": _on_random_words,
    }[kind]
    (scores,) = run(model, metadata).values()
    if scores.min() < -_TOLERANCE or scores.max() > 1 + _TOLERANCE:
        raise problem(
            f"a model whose outputs go from {scores.min():g} to {scores.max():g}",
            "scores of 0..1, which MediaPipe shows as they are",
            "convert keras_kd.tflite.android.with_softmax(student), or end it in a Softmax layer",
        )


def _on_random_words(model: TFLiteModel, metadata: Metadata) -> dict[str, np.ndarray]:
    assert metadata.vocabulary is not None  # Without one, scores of words are not checked.
    words = model.inputs[0]
    shape = (_RANDOM_IMAGES, *words.shape[1:])
    numbers = np.random.default_rng(0).integers(0, len(metadata.vocabulary), shape)
    return model.predict_by_name(numbers.astype(words.dtype))


def _on_random_pixels(model: TFLiteModel, metadata: Metadata) -> dict[str, np.ndarray]:
    """The outputs for random images that are scaled as MediaPipe does it."""
    image = model.inputs[0]
    shape = (_RANDOM_IMAGES, *image.shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if image.dtype != np.uint8:
        return model.predict_by_name(_normalized(pixels, metadata))
    # A file that stores pixels as they are holds their scale itself.
    stored = model.run_stored({image.name: pixels})
    return {tensor.name: tensor.dequantize(stored[tensor.name]) for tensor in model.outputs}


def _on_random_recordings(model: TFLiteModel, metadata: Metadata) -> dict[str, np.ndarray]:
    """The outputs for noise; recordings are numbers of -1..1."""
    shape = (_RANDOM_IMAGES, *model.inputs[0].shape[1:])
    noise = np.random.default_rng(0).uniform(-1, 1, shape)
    return model.predict_by_name(noise.astype(np.float32))


def _normalized(pixels: np.ndarray, metadata: Metadata) -> np.ndarray:
    (mean, *_), (std, *_) = per_channel("mean", metadata.mean), per_channel("std", metadata.std)
    return ((pixels - mean) / std).astype(np.float32)
