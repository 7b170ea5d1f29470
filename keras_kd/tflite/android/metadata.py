"""Metadata of classifiers for Android."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from keras_kd._checks import check_choice, check_integer, check_number, problem
from keras_kd.tflite.android.class_names import check_class_names, has_control_characters
from keras_kd.tflite.android.vocabulary import SEPARATOR, check_separator, check_vocabulary
from keras_kd.tflite.model import TFLiteModel

TRANSFORMATIONS = ("identity", "log", "inverse_logistic")
_PARAMETERS = ("scale", "slope", "offset", "min_score")
_FIX = "pass (scale, slope, offset), (scale, slope, offset, min_score) or None for each class"


@dataclass(frozen=True)
class ScoreCalibration:
    """A sigmoid for each class, after which one threshold can serve all classes.

    The calibrated score of x is `scale / (1 + exp(-(slope * g(x) + offset)))`, or `default_score`
    for a class without parameters and for an x that is not above the class's `min_score`.

    Args:
        sigmoids: for each class `(scale, slope, offset)`, `(scale, slope, offset, min_score)` or
            None; the scale is not negative.
        transformation: g: "identity" x, "log" log(x), or "inverse_logistic" log(x) - log(1 - x).
        default_score: see above.

    Raises:
        TypeError: if a parameter is not a number.
        ValueError: if no class has parameters, if one has another number of them, or if they are
            not finite or the scale is negative.
    """

    sigmoids: Sequence[Sequence[float] | None]
    transformation: str = "identity"
    default_score: float = 0.0

    def __post_init__(self) -> None:
        check_choice("transformation", self.transformation, TRANSFORMATIONS)
        score = check_number("default_score", self.default_score, fix="pass 0.0")
        object.__setattr__(self, "default_score", score)
        if not isinstance(self.sigmoids, Sequence) or not any(self.sigmoids):
            raise problem(f"sigmoids={self.sigmoids!r}", "parameters for at least one class", _FIX)
        sigmoids = tuple(_checked(index, row) for index, row in enumerate(self.sigmoids))
        object.__setattr__(self, "sigmoids", sigmoids)

    def to_csv(self) -> str:
        """The text of the file in which the format keeps the sigmoids: a line for each class."""
        rows = (map(repr, row) if row is not None else () for row in self.sigmoids)
        return "\n".join(",".join(row) for row in rows)


def calibration_from_csv(
    text: str, transformation: str = "identity", default_score: float = 0.0
) -> ScoreCalibration:
    """The calibration whose `to_csv` is `text`.

    Raises:
        ValueError: if it is not of that form.
    """
    try:
        rows = [
            tuple(map(float, line.split(","))) if line.strip() else None
            for line in text.split("\n")
        ]
    except ValueError as error:
        raise problem(
            f"a score calibration with something that is no number ({error})",
            "three or four numbers with commas between them on each line, or nothing",
            "write the file again",
        ) from error
    return ScoreCalibration(rows, transformation, default_score)


def _checked(index: int, row: Any) -> tuple[float, ...] | None:
    if row is None:
        return None
    if not isinstance(row, Sequence) or len(row) not in (3, 4):
        raise problem(f"sigmoids[{index}]={row!r}", "three or four numbers, or None", _FIX)
    return tuple(
        check_number(f"the {name} of class {index}", value, at_least=bound, fix=_FIX)
        for name, value, bound in zip(_PARAMETERS, row, (0.0, None, None, None), strict=False)
    )


CHANNELS = 3
INPUT_KINDS = ("image", "audio", "text", "numbers")


@dataclass(frozen=True)
class Metadata:
    """What `add_metadata` writes into a .tflite file, and MediaPipe and Android Studio read.

    A phone's pixels are numbers of 0..255. The file gets `(pixel - mean) / std`, which must be what
    the student was trained on; `normalization` computes mean and standard deviation for a range. By
    default the pixels arrive as they are.

    Args:
        class_names: the name of each class, in the order of the student's outputs: a list, or what
            `read_class_names` returned.
        name: what the model is called.
        description: what it does, in a sentence or more.
        author: its author.
        license: under which it may be used, for example "Apache-2.0".
        version: its own version, for example "1.2.0".
        mean: one number for all channels. Files of others may have one each for red, green and
            blue; MediaPipe does not take them: see `with_normalization`.
        std: what is divided by, likewise.
        score_calibration: how scores become comparable between classes; None leaves them.
        input_kind: what the input is: "image", "audio" (a recording, as it comes from a
            microphone), "text" (numbers of words) or "numbers" (spectrograms, measurements). By
            default its shape and type decide: images have three channels, words are integers.
        sample_rate: of a recording, in samples per second; a recording has one channel.
        vocabulary: of text, the words in the order of their numbers, such as
            `TextVectorization.get_vocabulary()`, or what `read_vocabulary` returned. With it
            MediaPipe's TextClassifier runs the file; apps find it as `vocab.txt` in the file.
        word_separator: of text, a regular expression for what separates words. MediaPipe
            looks words up as they are written: if all of them are in lower case, the app has to
            write the text so before.

    Raises:
        TypeError: if a value is of another type.
        ValueError: if there are no class names, if numbers are not finite, if a standard deviation
            is not above 0, if there are not as many calibrated classes as names, or if a kind of
            input is unknown or contradicts another value.

    Example:
        ```python
        mean, std = keras_kd.tflite.android.normalization(0, 1)
        metadata = keras_kd.tflite.android.Metadata(["cat", "dog"], name="pets", mean=mean, std=std)
        ```
    """

    class_names: Sequence[str]
    name: str = ""
    description: str = ""
    author: str = ""
    license: str = ""
    version: str = ""
    mean: float | Sequence[float] = (0.0,)
    std: float | Sequence[float] = (1.0,)
    score_calibration: ScoreCalibration | None = None
    input_kind: str | None = None
    sample_rate: int | None = None
    vocabulary: Sequence[str] | None = None
    word_separator: str = SEPARATOR

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.default == "":
                _check_text(field.name, getattr(self, field.name))
        object.__setattr__(self, "class_names", check_class_names(self.class_names))
        object.__setattr__(self, "mean", per_channel("mean", self.mean))
        object.__setattr__(self, "std", per_channel("std", self.std, above=0.0))
        self._check_calibration()
        self._check_kind()
        check_separator(self.word_separator)
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", check_vocabulary(self.vocabulary))
            if self.input_kind not in (None, "text"):
                raise problem(
                    f"a vocabulary with input_kind={self.input_kind!r}",
                    "words for a student of text alone",
                    "pass input_kind='text', or leave the vocabulary out",
                )

    def _check_kind(self) -> None:
        kind = self.input_kind
        if kind is not None:
            check_choice("input_kind", kind, INPUT_KINDS)
        if self.sample_rate is not None:
            fix = "pass sample_rate=16000 for 16 kHz"
            check_integer("sample_rate", self.sample_rate, at_least=1, fix=fix)
        if (kind == "audio") != (self.sample_rate is not None) and kind is not None:
            raise problem(
                f"input_kind={kind!r} with sample_rate={self.sample_rate}",
                "a sample rate for recordings, and for nothing else",
                "pass input_kind='audio', sample_rate=16000 for a student of recordings; leave "
                "sample_rate out for spectrograms",
            )

    def _check_calibration(self) -> None:
        calibration = self.score_calibration
        if calibration is None:
            return
        if not isinstance(calibration, ScoreCalibration):
            raise problem(
                f"score_calibration of type {type(calibration).__name__}",
                "a keras_kd.tflite.android.ScoreCalibration",
                "pass ScoreCalibration([(scale, slope, offset), ...]), a row for each class",
                kind=TypeError,
            )
        if len(calibration.sigmoids) != len(self.class_names):
            raise problem(
                f"a score calibration of {len(calibration.sigmoids)} classes",
                f"as many as there are class names, {len(self.class_names)}",
                "add None for each class without a calibration",
            )


def normalization(low: float, high: float) -> tuple[float, float]:
    """Mean and standard deviation that bring pixels of 0..255 to the range `low` to `high`.

    That is `pixel / 255 * (high - low) + low`, written as `(pixel - mean) / std`: (0, 255) for 0
    to 1, (127.5, 127.5) for -1 to 1, (0, 1) for 0 to 255.

    Args:
        low: what the student was trained to take for black.
        high: what it was trained to take for white.

    Raises:
        TypeError: if they are not numbers.
        ValueError: if they are not finite, or if `high` is not above `low`.
    """
    low = check_number("low", low, fix="pass 0.0")
    high = check_number("high", high, above=low, fix="pass the smaller number first, as in (0, 1)")
    std = 255 / (high - low)
    # Not -low, which would be a negative zero.
    return (0 - low) * std, std


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise problem(f"{name}={value!r}", "text", f"pass {name}={str(value)!r}", kind=TypeError)
    if has_control_characters(value, allowed="\r\n\t"):
        raise problem(
            f"{name}={value!r} with control characters",
            "text that can be shown",
            "leave them out",
        )


def per_channel(name: str, value: Any, above: float | None = None) -> tuple[float, ...]:
    """One number, or one each for red, green and blue, as a tuple.

    Raises:
        TypeError: if they are no numbers.
        ValueError: if there are as many as neither, or if one is not finite or not above the bound.
    """
    fix = f"pass {name}=127.5, or a number for each of red, green and blue"
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(values) not in (1, CHANNELS):
        raise problem(f"{name}={value!r}", "one number, or one for each of three channels", fix)
    return tuple(check_number(name, number, above=above, fix=fix) for number in values)


def kind_of_input(model: TFLiteModel, metadata: Metadata) -> str:
    """One of `INPUT_KINDS`.

    Args:
        model: the file.
        metadata: its metadata; their `input_kind` counts if there is one.

    Raises:
        ValueError: if the input could be a grey image as well as a spectrogram, and the metadata do
            not decide.
    """
    if metadata.input_kind is not None:
        return metadata.input_kind
    if metadata.vocabulary is not None:
        return "text"
    kind = likely_kind(model, metadata.sample_rate)
    if kind is None:
        raise problem(
            f"class_names for the input {model.inputs[0]}, which is a grey image or a spectrogram",
            "an unambiguous model: MediaPipe passes images in three channels",
            "for images, convert keras_kd.tflite.android.with_color_input(student) "
            "(--color-input); for anything else pass input_kind='numbers' "
            "(--input-kind numbers)",
        )
    return kind


def likely_kind(model: TFLiteModel, sample_rate: int | None) -> str | None:
    """What the inputs are by their shapes and types; None if these do not decide."""
    if sample_rate is not None:
        return "audio"
    if all(tensor.dtype.kind in "iu" and not tensor.is_quantized for tensor in model.inputs):
        return "image" if len(model.inputs[0].shape) == 4 else "text"
    if len(model.inputs) > 1 or len(model.inputs[0].shape) != 4:
        return "numbers"
    channels = model.inputs[0].shape[-1]
    # More channels than colors are measured by something else than a camera.
    return {1: None, CHANNELS: "image"}.get(channels, "numbers")
