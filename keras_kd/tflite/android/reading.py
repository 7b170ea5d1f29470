"""Reading metadata from a .tflite file of any maker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keras_kd._checks import problem
from keras_kd.tflite.android.class_names import class_names_from_bytes
from keras_kd.tflite.android.metadata import (
    TRANSFORMATIONS,
    Metadata,
    ScoreCalibration,
    calibration_from_csv,
    likely_kind,
)
from keras_kd.tflite.android.vocabulary import SEPARATOR, from_bytes
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.archive import read_file
from keras_kd.tflite.contents.metadata import options_of
from keras_kd.tflite.contents.tables import TableReader
from keras_kd.tflite.model import TFLiteModel


def read_metadata(model: TFLiteModel) -> Metadata:
    """Read the metadata of a classifier, also of one from other tools.

    Nothing is written to disk, and nothing outside of the file is read.

    Args:
        model: a model with metadata, such as `add_metadata` returns.

    Raises:
        ValueError: if there are no metadata or no class names, if what is there is damaged, or
            if it could not be a `Metadata`: see there.
    """
    content = model.flatbuffer.metadata(schema.ENTRY)
    if content is None:
        raise problem(
            "a model without TFLite metadata",
            "one with the names of its classes",
            "write them with keras_kd.tflite.android.add_metadata",
        )
    root = TableReader.root(content, schema.FILE_IDENTIFIER)
    graph = _first(root.tables(schema.Model.SUBGRAPHS), "a part about the graph")
    read = _first(graph.tables(schema.Subgraph.INPUTS), "a part about the input")
    scores = _first(graph.tables(schema.Subgraph.OUTPUTS), "a part about the output")
    mean, std = _normalization(read)
    kind, sample_rate = _kind(model, read)
    return Metadata(
        class_names=class_names_from_bytes(
            _associated_file(model, scores, schema.AssociatedFileType.LABELS, "labels")
        ),
        name=root.text(schema.Model.NAME),
        description=root.text(schema.Model.DESCRIPTION),
        author=root.text(schema.Model.AUTHOR),
        license=root.text(schema.Model.LICENSE),
        version=root.text(schema.Model.VERSION),
        mean=mean,
        std=std,
        score_calibration=_score_calibration(model, scores),
        input_kind=kind,
        sample_rate=sample_rate,
        **_tokenizer(model, read),
    )


def _tokenizer(model: TFLiteModel, read: TableReader) -> dict[str, Any]:
    """Vocabulary and separator of a file for text; nothing of another one."""
    options = options_of(read, schema.ProcessUnitOptions.REGEX_TOKENIZER)
    if options is None:
        return {}
    files = options.tables(schema.RegexTokenizer.VOCABULARY)
    name = _first(files, "a file of words").text(schema.AssociatedFile.NAME)
    separator = options.text(schema.RegexTokenizer.SEPARATOR)
    return {
        "vocabulary": from_bytes(read_file(model.content, name)),
        "word_separator": separator or SEPARATOR,
    }


def _kind(model: TFLiteModel, read: TableReader) -> tuple[str | None, int | None]:
    """The kind of the input, None if its shape decides that; and the rate of a recording."""
    content = read.table(schema.Tensor.CONTENT)
    if content is None:
        return None, None
    kind = content.number(schema.Content.PROPERTIES_TYPE, "<B")
    if kind == schema.ContentProperties.AUDIO:
        properties = content.table(schema.Content.PROPERTIES)
        slot = schema.AudioProperties.SAMPLE_RATE
        rate = 0 if properties is None else properties.number(slot, "<I")
        # A recording without a rate cannot be used.
        return (None, int(rate)) if rate else ("numbers", None)
    likely = likely_kind(model, None)
    if kind == schema.ContentProperties.IMAGE:
        return None if likely == "image" else "image", None
    return None if likely in ("text", "numbers") else "numbers", None


def _normalization(read: TableReader) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation; a file that stores pixels as they are may have none."""
    options = options_of(read, schema.ProcessUnitOptions.NORMALIZATION)
    if options is None:
        return (0.0,), (1.0,)
    return options.floats(schema.Normalization.MEAN), options.floats(schema.Normalization.STD)


def _score_calibration(model: TFLiteModel, scores: TableReader) -> ScoreCalibration | None:
    options = options_of(scores, schema.ProcessUnitOptions.SCORE_CALIBRATION)
    if options is None:
        return None
    kind = schema.AssociatedFileType.SCORE_CALIBRATION
    text = _associated_file(model, scores, kind, "score calibration").decode(errors="replace")
    transformation = options.number(schema.ScoreCalibration.TRANSFORMATION, "<B")
    if transformation >= len(TRANSFORMATIONS):
        raise problem(
            f"the score transformation {transformation}",
            f"a number below {len(TRANSFORMATIONS)}",
            "read the file with a newer version of this package, or write its metadata again",
        )
    default_score = options.number(schema.ScoreCalibration.DEFAULT_SCORE, "<f")
    return calibration_from_csv(text, TRANSFORMATIONS[transformation], default_score)


def _associated_file(
    model: TFLiteModel, tensor: TableReader, kind: schema.AssociatedFileType, what: str
) -> bytes:
    """What the first associated file of a kind holds; others are translations."""
    for file in tensor.tables(schema.Tensor.FILES):
        if file.number(schema.AssociatedFile.TYPE, "<B") == kind:
            return read_file(model.content, file.text(schema.AssociatedFile.NAME))
    raise _missing(f"a file of {what}")


def _first(tables: Iterator[TableReader], what: str) -> TableReader:
    found = next(tables, None)
    if found is None:
        raise _missing(what)
    return found


def _missing(what: str) -> Exception:
    return problem(
        f"TFLite metadata without {what}",
        "the metadata of a classifier",
        "write them again with keras_kd.tflite.android.add_metadata",
    )
