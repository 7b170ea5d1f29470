"""Putting metadata into a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras_kd.tflite.android.class_names import warn_of_same_names
from keras_kd.tflite.android.classifier import check_classifier
from keras_kd.tflite.android.metadata import Metadata, kind_of_input
from keras_kd.tflite.android.vocabulary import to_bytes
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.archive import append_files
from keras_kd.tflite.contents.tables import write_tables
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import TensorInfo

LABELS_FILE = "labels.txt"
CALIBRATION_FILE = "score_calibration.csv"
VOCABULARY_FILE = "vocab.txt"
_INPUTS = {
    "image": "The image to classify.",
    "audio": "The recording to classify.",
    "text": "The numbers of the words to classify.",
    "numbers": "The numbers to classify.",
}


def add_metadata(model: TFLiteModel, metadata: Metadata) -> TFLiteModel:
    """Write metadata into a classifier, so that MediaPipe and Android Studio understand it.

    The result is a file of the same weights, aligned to 16 bytes, that LiteRT runs as before. The
    class names are in a zip archive behind it: `unzip student.tflite labels.txt` shows them.
    Metadata that the model had are replaced.

    | input | output | runs in MediaPipe's |
    |---|---|---|
    | an image (1, height, width, 3) | scores (1, classes) | ImageClassifier |
    | an image (1, height, width, 3) | scores (1, height, width, classes) | ImageSegmenter |
    | a recording (1, samples), with `sample_rate` | scores (1, classes) | AudioClassifier |
    | words (1, length), with `vocabulary` | scores (1, classes) | TextClassifier |
    | words or other numbers | any shape that ends in the classes | none; apps read the names |

    What these would refuse on the phone, or take with meaningless results, is refused here.

    Args:
        model: what `convert(student, ..., target="android")` returned.
        metadata: what to write.

    Returns:
        A new model with the evidence (`verification`) of `model`, which stays as it is.

    Raises:
        ValueError: if the model is none of these, if its outputs are not scores of 0..1 where
            MediaPipe shows them, if there are not as many names as classes, if mean or standard
            deviation differ by channel, or if they bring pixels to other numbers than the file was
            calibrated on. A name that occurs twice is warned of.

    Example:
        ```python
        mean, std = keras_kd.tflite.android.normalization(0, 1)
        metadata = keras_kd.tflite.android.Metadata(["cat", "dog"], name="pets", mean=mean, std=std)
        keras_kd.tflite.android.add_metadata(model, metadata).save("pets.tflite")
        ```
    """
    kind = kind_of_input(model, metadata)
    check_classifier(model, metadata, kind)
    warn_of_same_names(metadata.class_names)
    written = write_tables(_model_table(model, metadata, kind), schema.FILE_IDENTIFIER)
    content = model.flatbuffer.with_metadata(schema.ENTRY, written)
    described = TFLiteModel(append_files(content, _files(metadata)))
    if model.verification is not None:
        # The weights are those that were compared; what is in the file has changed.
        described.verification = replace(model.verification, inspection=described.inspect())
    return described


def _files(metadata: Metadata) -> dict[str, bytes]:
    # A new line at the end of either would be one class more to some readers.
    files = {LABELS_FILE: "\n".join(metadata.class_names)}
    if metadata.score_calibration is not None:
        files[CALIBRATION_FILE] = metadata.score_calibration.to_csv()
    found = {name: text.encode() for name, text in files.items()}
    if metadata.vocabulary is not None:
        found[VOCABULARY_FILE] = to_bytes(metadata.vocabulary)
    return found


def _model_table(model: TFLiteModel, metadata: Metadata, kind: str) -> dict[int, Any]:
    inputs = [_input_table(tensor, metadata, kind) for tensor in model.inputs]
    return {
        schema.Model.NAME: metadata.name,
        schema.Model.DESCRIPTION: metadata.description,
        schema.Model.VERSION: metadata.version,
        schema.Model.SUBGRAPHS: [
            {
                schema.Subgraph.INPUTS: inputs,
                schema.Subgraph.OUTPUTS: [_scores_table(model, metadata)],
            }
        ],
        schema.Model.AUTHOR: metadata.author,
        schema.Model.LICENSE: metadata.license,
        schema.Model.MIN_PARSER_VERSION: schema.MIN_PARSER_VERSION,
    }


def _input_table(tensor: TensorInfo, metadata: Metadata, kind: str) -> dict[int, Any]:
    table: dict[int, Any] = {
        schema.Tensor.NAME: tensor.name,
        schema.Tensor.DESCRIPTION: _INPUTS[kind],
    }
    if kind == "image":
        _, height, width, _ = tensor.shape
        size = {schema.ImageSize.WIDTH: width, schema.ImageSize.HEIGHT: height}
        image = {
            schema.ImageProperties.COLOR_SPACE: schema.ColorSpace.RGB,
            schema.ImageProperties.DEFAULT_SIZE: size,
        }
        normalization = {
            schema.Normalization.MEAN: metadata.mean,
            schema.Normalization.STD: metadata.std,
        }
        table[schema.Tensor.CONTENT] = _content(schema.ContentProperties.IMAGE, image)
        table[schema.Tensor.PROCESS_UNITS] = [
            _process_unit(schema.ProcessUnitOptions.NORMALIZATION, normalization)
        ]
    elif kind == "audio":
        recording = {
            schema.AudioProperties.SAMPLE_RATE: metadata.sample_rate,
            schema.AudioProperties.CHANNELS: 1,
        }
        table[schema.Tensor.CONTENT] = _content(schema.ContentProperties.AUDIO, recording)
    else:
        table[schema.Tensor.CONTENT] = _content(schema.ContentProperties.FEATURE, {})
    if metadata.vocabulary is not None:
        words = _file(
            VOCABULARY_FILE,
            "A word and its number on each line.",
            schema.AssociatedFileType.VOCABULARY,
        )
        tokenizer = {
            schema.RegexTokenizer.SEPARATOR: metadata.word_separator,
            schema.RegexTokenizer.VOCABULARY: [words],
        }
        table[schema.Tensor.PROCESS_UNITS] = [
            _process_unit(schema.ProcessUnitOptions.REGEX_TOKENIZER, tokenizer)
        ]
    return table


def _scores_table(model: TFLiteModel, metadata: Metadata) -> dict[int, Any]:
    table: dict[int, Any] = {
        schema.Tensor.NAME: model.outputs[0].name,
        schema.Tensor.DESCRIPTION: "The score of each class.",
        schema.Tensor.CONTENT: _content(schema.ContentProperties.FEATURE, {}),
        schema.Tensor.FILES: [
            _file(LABELS_FILE, "The name of each class.", schema.AssociatedFileType.LABELS)
        ],
    }
    calibration = metadata.score_calibration
    if calibration is not None:
        transformation = schema.ScoreTransformation[calibration.transformation.upper()]
        options = {
            schema.ScoreCalibration.TRANSFORMATION: transformation,
            schema.ScoreCalibration.DEFAULT_SCORE: calibration.default_score,
        }
        table[schema.Tensor.PROCESS_UNITS] = [
            _process_unit(schema.ProcessUnitOptions.SCORE_CALIBRATION, options)
        ]
        table[schema.Tensor.FILES].append(
            _file(
                CALIBRATION_FILE,
                "Scale, slope, offset and least score of each class.",
                schema.AssociatedFileType.SCORE_CALIBRATION,
            )
        )
    return table


def _content(kind: schema.ContentProperties, properties: Mapping[Any, Any]) -> dict[int, Any]:
    return {schema.Content.PROPERTIES_TYPE: kind, schema.Content.PROPERTIES: properties}


def _process_unit(kind: schema.ProcessUnitOptions, options: Mapping[Any, Any]) -> dict[int, Any]:
    return {schema.ProcessUnit.OPTIONS_TYPE: kind, schema.ProcessUnit.OPTIONS: options}


def _file(name: str, description: str, kind: schema.AssociatedFileType) -> dict[int, Any]:
    return {
        schema.AssociatedFile.NAME: name,
        schema.AssociatedFile.DESCRIPTION: description,
        schema.AssociatedFile.TYPE: kind,
    }
