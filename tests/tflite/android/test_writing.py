import io
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tflite_schema

from keras_kd import tflite
from keras_kd.tflite import android


def _weights(content):
    """Where the values of each buffer begin, and what they are."""
    model = tflite_schema.Model.GetRootAsModel(content, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    found = [buffer for buffer in buffers if buffer.DataLength()]
    return [(b._tab.Vector(b._tab.Offset(4)), b.DataAsNumpy().tobytes()) for b in found]


def test_the_file_computes_what_it_did(color_model, described, color_images):
    assert described is not color_model
    assert described.inputs == color_model.inputs
    assert described.outputs == color_model.outputs
    assert described.operators == color_model.operators
    np.testing.assert_array_equal(
        described.predict(color_images), color_model.predict(color_images)
    )


def test_weights_are_aligned_and_the_same(color_model, described):
    weights = _weights(described.content)
    assert all(position % 16 == 0 for position, _ in weights)
    values = [value for _, value in weights]
    assert all(value in values for _, value in _weights(color_model.content))


def test_the_evidence_comes_along(color_model, color_student, color_images, plain):
    evidence = tflite.verify(color_model, color_student, color_images)
    model = tflite.TFLiteModel(color_model.content, evidence)
    added = android.add_metadata(model, plain)
    assert added.verification.largest_difference == evidence.largest_difference
    assert evidence.bytes["metadata"] < added.verification.bytes["metadata"] < 1000
    assert sum(added.verification.bytes.values()) == added.size


def test_the_runtime_of_new_apps_finds_inputs_and_outputs_by_name(described, color_images):
    """LiteRT's CompiledModel, with the names of which docs/android.md speaks."""
    from ai_edge_litert.compiled_model import CompiledModel

    model = CompiledModel.from_buffer(described.content)
    image = model.create_input_buffer_by_name("serving_default", "image")
    scores = model.create_output_buffer_by_name("serving_default", "scores")
    image.write(color_images[:1])
    model.run_by_name("serving_default", {"image": image}, {"scores": scores})
    expected = described.predict(color_images[:1])[0]
    np.testing.assert_allclose(scores.read(3, np.float32), expected, atol=1e-6)


def test_other_tools_find_the_files(described, tmp_path):
    path = described.save(tmp_path / "fruit.tflite")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt", "score_calibration.csv"]
        assert archive.read("labels.txt").decode() == "Äpfel\n苹果\napple \N{RED APPLE}"
        lines = archive.read("score_calibration.csv").decode().split("\n")
        assert lines == ["1.0,2.0,-0.5", "", "0.5,3.0,0.25,0.125"]
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            # Readers that know nothing of what is in front of the archive count from the beginning.
            assert described.content[entry.header_offset :].startswith(b"PK\x03\x04")


def test_the_same_metadata_make_the_same_bytes(color_model, described, metadata):
    assert android.add_metadata(color_model, metadata).content == described.content


def test_metadata_are_replaced(described, plain):
    again = android.add_metadata(described, plain)
    assert android.read_metadata(again) == plain
    with zipfile.ZipFile(io.BytesIO(again.content)) as archive:
        assert archive.namelist() == ["labels.txt"]
    assert again.size < described.size
    entries = again.flatbuffer.metadata_names
    assert entries.count("TFLITE_METADATA") == 1


def test_metadata_cost_little(color_model, plain):
    added = android.add_metadata(color_model, plain)
    assert added.size - len(color_model.flatbuffer.aligned()) < 1000


def test_an_int8_file_for_phones_can_have_them(phone_model, plain, color_images):
    added = android.add_metadata(phone_model, plain)
    assert android.read_metadata(added) == plain
    np.testing.assert_array_equal(added.predict(color_images), phone_model.predict(color_images))


def test_the_original_stays(color_model, plain):
    content = color_model.content
    android.add_metadata(color_model, plain)
    assert color_model.content is content
    assert color_model.flatbuffer.metadata("TFLITE_METADATA") is None
    with pytest.raises(ValueError, match="without TFLite metadata"):
        android.read_metadata(color_model)
