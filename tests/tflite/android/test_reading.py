import warnings

import numpy as np
import pytest

from keras_kd.tflite import TFLiteModel, android
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.archive import append_files
from keras_kd.tflite.contents.tables import write_tables


def test_round_trip(described, metadata, tmp_path):
    assert android.read_metadata(described) == metadata
    path = described.save(tmp_path / "fruit.tflite")
    assert android.read_metadata(TFLiteModel.load(path)) == metadata


def _file(name="labels.txt", kind=schema.AssociatedFileType.LABELS):
    return {schema.AssociatedFile.NAME: name, schema.AssociatedFile.TYPE: kind}


def _made_by_others(color_model, scores, image=None, files=None):
    graph = {schema.Subgraph.INPUTS: [image or {}], schema.Subgraph.OUTPUTS: [scores]}
    written = write_tables({schema.Model.SUBGRAPHS: [graph]}, schema.FILE_IDENTIFIER)
    content = color_model.flatbuffer.with_metadata(schema.ENTRY, written)
    files = {"labels.txt": b"a\nb\nc"} if files is None else files
    return TFLiteModel(append_files(content, files))


def test_a_file_of_others_may_say_little(color_model):
    model = _made_by_others(color_model, {schema.Tensor.FILES: [_file()]})
    assert android.read_metadata(model) == android.Metadata(["a", "b", "c"])


def test_the_first_file_of_labels_counts(color_model):
    """Others are translations."""
    scores = {schema.Tensor.FILES: [_file("notes.txt", 1), _file("en.txt"), _file("de.txt")]}
    files = {"notes.txt": b"-", "de.txt": b"Katze\nHund", "en.txt": b"cat\ndog"}
    model = _made_by_others(color_model, scores, files=files)
    assert android.read_metadata(model).class_names == ("cat", "dog")


CALIBRATION = _file("labels.txt", schema.AssociatedFileType.SCORE_CALIBRATION)


def _calibrated(transformation):
    options = {schema.ScoreCalibration.TRANSFORMATION: transformation}
    unit = {schema.ProcessUnit.OPTIONS_TYPE: schema.ProcessUnitOptions.SCORE_CALIBRATION}
    return [{**unit, schema.ProcessUnit.OPTIONS: options}]


@pytest.mark.parametrize(
    ("scores", "files", "message"),
    [
        ({}, None, "without a file of labels"),
        ({schema.Tensor.FILES: [_file("../labels.txt")]}, None, "a name without a directory"),
        ({schema.Tensor.FILES: [_file("missing.txt")]}, None, "'missing.txt' which is not there"),
        ({schema.Tensor.FILES: [_file()]}, {}, "'labels.txt' which is not there"),
        ({schema.Tensor.FILES: [_file()]}, {"labels.txt": b"\xff"}, "not UTF-8"),
        (
            {schema.Tensor.FILES: [_file()], schema.Tensor.PROCESS_UNITS: _calibrated(1)},
            None,
            "without a file of score calibration",
        ),
        (
            {
                schema.Tensor.FILES: [_file(), CALIBRATION],
                schema.Tensor.PROCESS_UNITS: _calibrated(schema.ScoreTransformation.LOG),
            },
            None,
            "no number",
        ),
        (
            {
                schema.Tensor.FILES: [_file(), CALIBRATION],
                schema.Tensor.PROCESS_UNITS: _calibrated(schema.AssociatedFileType(4)),
            },
            None,
            "score transformation 4",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(color_model, scores, files, message):
    model = _made_by_others(color_model, scores, files=files)
    with pytest.raises(ValueError, match=message) as caught:
        android.read_metadata(model)
    assert "\n" not in str(caught.value)


def test_metadata_without_a_graph(color_model):
    for table in ({}, {schema.Model.SUBGRAPHS: [{}]}):
        written = write_tables(table, schema.FILE_IDENTIFIER)
        content = color_model.flatbuffer.with_metadata(schema.ENTRY, written)
        with pytest.raises(ValueError, match="without a part about the"):
            android.read_metadata(TFLiteModel(content))


def _load_and_read(content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        android.read_metadata(TFLiteModel(content))


def test_damage_ends_in_one_line_or_is_not_seen(described, is_refused):
    """Bytes changed in the metadata and in what lies behind the model."""
    content = described.content
    written = described.flatbuffer.metadata(schema.ENTRY)
    start = content.index(written)
    places = [*range(start, start + len(written)), *range(content.index(b"PK\x03"), len(content))]
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for index in generator.choice(places, size=generator.integers(1, 8)):
            damaged[index] = generator.choice([0, 0x7F, 0xFF, generator.integers(256)])
        refused += is_refused(_load_and_read, bytes(damaged))
    assert refused > 20
