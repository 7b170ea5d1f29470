import io
import struct
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_kd import tflite
from keras_kd.tflite.contents.byte_kinds import KINDS, bytes_by_kind
from keras_kd.tflite.runtimes.benchmark import smallest_model


def unpacked(content):
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def packed(model):
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def files(float_model, micro_model, student, images):
    return {
        "float32": float_model.content,
        "float16": tflite.convert(student, "float16").content,
        "int8": micro_model.content,
        "smallest": smallest_model(),
    }


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "smallest"])
def test_the_kinds_are_all_of_the_file(files, name):
    content = files[name]
    counted = bytes_by_kind(content)
    assert tuple(counted) == KINDS
    assert sum(counted.values()) == len(content)
    assert all(count >= 0 for count in counted.values())


@pytest.mark.parametrize("name", ["float32", "float16", "int8"])
def test_weights_are_the_values_of_constant_tensors(files, name):
    model = unpacked(files[name])
    described = {entry.buffer for entry in model.metadata}
    stored = [
        0 if buffer.data is None else len(buffer.data)
        for index, buffer in enumerate(model.buffers)
        if index not in described
    ]
    assert bytes_by_kind(files[name])["weights"] == sum(stored) > 0


def without_names(model):
    model.description = None
    for graph in model.subgraphs:
        graph.name = None
        for tensor in graph.tensors:
            tensor.name = None


def without_quantization(model):
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.quantization = None


def without_metadata(model):
    for entry in model.metadata:
        model.buffers[entry.buffer].data = None
    model.metadata = None


@pytest.mark.parametrize(
    ("name", "kind", "left_out"),
    [
        ("float32", "names", without_names),
        ("int8", "quantization", without_quantization),
        ("float32", "metadata", without_metadata),
    ],
)
def test_what_leaving_a_kind_out_saves(files, name, kind, left_out):
    model = unpacked(files[name])
    whole = packed(model)
    left_out(model)
    rest = packed(model)
    saved = len(whole) - len(rest)
    before, after = bytes_by_kind(whole), bytes_by_kind(rest)
    # With them go the tables and offsets that lead to them, and padding.
    assert 0.5 * saved < before[kind] - after[kind] <= saved
    others = set(KINDS) - {kind, "overhead"}
    assert all(after[other] == before[other] for other in others)


def test_class_names_behind_the_model_are_metadata(files):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("labels.txt", "zero\none\n" * 50)
    behind = archive.getvalue()
    before, after = bytes_by_kind(files["int8"]), bytes_by_kind(files["int8"] + behind)
    assert after == {**before, "metadata": before["metadata"] + len(behind)}


def test_values_behind_the_tables_are_weights(files):
    model = unpacked(files["smallest"])
    model.buffers[0].offset, model.buffers[0].size = 4000, 160
    content = packed(model).ljust(4000, b"\0") + bytes(160)
    assert bytes_by_kind(content)["weights"] == 160
    assert sum(bytes_by_kind(content).values()) == 4160


def test_damaged_bytes_raise_or_are_counted(files):
    random = np.random.default_rng(0)
    refused = []
    for _ in range(300):
        content = bytearray(files["int8"])
        for place in random.integers(len(content) - 4, size=3):
            struct.pack_into("<I", content, place, random.integers(2**32))
        try:
            assert sum(bytes_by_kind(bytes(content)).values()) == len(content)
        except ValueError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 300
    assert all(message.startswith("Received") for message in refused)
    with pytest.raises(ValueError, match=r"2 bytes that do not follow the schema"):
        bytes_by_kind(b"no")
