"""What the input of a model is: an image, a recording, words or other numbers."""

from __future__ import annotations

from keras_kd._checks import problem
from keras_kd.tflite.android.metadata import CHANNELS, Metadata
from keras_kd.tflite.model import TFLiteModel


def kind_of_input(model: TFLiteModel, metadata: Metadata) -> str:
    """One of `keras_kd.tflite.android.metadata.INPUT_KINDS`.

    Args:
        model: the file.
        metadata: what is said of it; what it says of the kind counts.

    Raises:
        ValueError: if the input could be a grey image as well as a spectrogram, and nothing says
            which.
    """
    if metadata.input_kind is not None:
        return metadata.input_kind
    if metadata.vocabulary is not None:
        return "text"
    kind = likely_kind(model, metadata.sample_rate)
    if kind is None:
        raise problem(
            f"labels for the input {model.inputs[0]}, which is a grey image or a spectrogram",
            "a model that says which: MediaPipe hands over images in three channels",
            "for images, convert keras_kd.tflite.android.with_color_input(student) "
            "(--color-input); for anything else pass input_kind='numbers' "
            "(--input-kind numbers)",
        )
    return kind


def likely_kind(model: TFLiteModel, sample_rate: int | None) -> str | None:
    """What the inputs are by their shapes and types; None if that does not tell."""
    if sample_rate is not None:
        return "audio"
    if all(tensor.dtype.kind in "iu" and not tensor.is_quantized for tensor in model.inputs):
        return "image" if len(model.inputs[0].shape) == 4 else "text"
    if len(model.inputs) > 1 or len(model.inputs[0].shape) != 4:
        return "numbers"
    channels = model.inputs[0].shape[-1]
    # More channels than colors are measured by something else than a camera.
    return {1: None, CHANNELS: "image"}.get(channels, "numbers")
