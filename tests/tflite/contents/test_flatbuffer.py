import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_kd import tflite
from keras_kd.tflite.contents.byte_kinds import bytes_by_kind
from keras_kd.tflite.contents.flatbuffer import FlatBufferModel
from keras_kd.tflite.contents.packing import packed
from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.forms import FORMS, Options
from keras_kd.tflite.student import Signature


def _offsets(content):
    model = schema.Model.GetRootAsModel(content, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    field = 4
    return [b._tab.Vector(b._tab.Offset(field)) for b in buffers if b.DataLength()]


@pytest.fixture(scope="module")
def unfinished(student):
    """What TensorFlow's converter makes."""
    return run_converter(Signature(student), Options(FORMS["float32"]), None)


def test_weights_are_aligned(unfinished, float_model, micro_model):
    assert any(offset % 16 for offset in _offsets(unfinished)), "no longer needed"
    assert all(offset % 16 == 0 for offset in _offsets(float_model.content))
    assert all(offset % 16 == 0 for offset in _offsets(micro_model.content))


def test_aligning_changes_no_result_and_is_done_once(float_model, images):
    content = float_model.flatbuffer.aligned()
    aligned = tflite.TFLiteModel(content)
    assert aligned.flatbuffer.aligned() == content
    assert aligned.inputs == float_model.inputs
    np.testing.assert_array_equal(aligned.predict(images), float_model.predict(images))


def test_what_computes_in_floating_point(float_model, micro_model, student, images):
    expected = ["CONV_2D", "FULLY_CONNECTED", "RESHAPE", "SOFTMAX"]
    assert float_model.flatbuffer.float_operators() == expected
    assert micro_model.flatbuffer.float_operators() == []
    phone = tflite.convert(student, "int8", images)
    assert phone.operators.keys() >= {"QUANTIZE", "DEQUANTIZE"}
    assert phone.flatbuffer.float_operators() == []


def test_types_of_weights(float_model, micro_model):
    assert float_model.flatbuffer.weight_types() == {"FLOAT32", "INT32"}
    assert micro_model.flatbuffer.weight_types() == {"INT8", "INT32"}


@pytest.mark.parametrize("target", ["android", "web"])
def test_names_are_left_out_but_those_of_inputs_and_outputs(target, unfinished, student):
    model = tflite.convert(student, target=target)
    names = [tensor.name for tensor in model.flatbuffer.tensors()]
    named = [name for name in names if not name.startswith("tensor ")]
    assert named[0] == "serving_default_image:0"
    assert named[1].startswith("StatefulPartitionedCall")
    assert len(named) == 2
    floats = FlatBufferModel(unfinished)
    left_out = [tensor.name for tensor in floats.tensors() if tensor.name not in named]
    # How long they are depends on how many layers were made before; each has padding besides.
    assert len(floats.aligned()) - model.size > sum(map(len, left_out))
    assert [t.name for t in (*model.inputs, *model.outputs)] == ["image", "output"]


def test_float16_is_smaller_than_float32():
    """Each weight has a DEQUANTIZE in float16, whose names took more than half of the bytes."""
    small = [keras.layers.Dense(8, activation="relu") for _ in range(6)]
    student = keras.Sequential([keras.Input((16,)), *small])
    assert tflite.convert(student, "float16").size < tflite.convert(student).size


def test_names_are_left_out_for_microcontrollers(unfinished, images, micro_model):
    floats = FlatBufferModel(unfinished)
    named, nameless = floats.aligned(), floats.without_names()
    inner = [tensor.name for tensor in floats.tensors()]
    # A name also has a length, an offset and padding.
    assert len(named) - len(nameless) > sum(map(len, inner))
    assert b"conv2d" in named
    assert b"conv2d" not in nameless
    assert all(offset % 16 == 0 for offset in _offsets(nameless))
    stripped = tflite.TFLiteModel(nameless)
    assert [t.name for t in (*stripped.inputs, *stripped.outputs)] == ["image", "output"]
    np.testing.assert_array_equal(
        stripped.predict({"image": images}), tflite.TFLiteModel(named).predict(images)
    )
    assert stripped.flatbuffer.without_names() == nameless
    assert all(t.name.startswith("tensor ") for t in micro_model.flatbuffer.tensors())


def test_weights_that_are_integers_beside_activations_that_are_not(student, float_model):
    assert float_model.flatbuffer.hybrid_operators() == []
    dynamic = tflite.convert(student, "dynamic_int8").flatbuffer
    assert dynamic.hybrid_operators() == ["FULLY_CONNECTED"]


def test_integer_inputs_have_no_range():
    student = keras.Sequential([keras.Input((4,), dtype="uint8"), keras.layers.Rescaling(2.0)])
    model = tflite.convert(student)
    assert model.flatbuffer.input_ranges() == [None]
    assert model.predict(np.full((1, 4), 3, np.uint8)).tolist() == [[6.0] * 4]


def _repeated(content, count):
    """The file with that many offsets in its operator codes to a table with a name of 1 MB."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    builder = flatbuffers.Builder()
    name = builder.CreateString(b"x" * 2**20)
    schema.OperatorCodeStart(builder)
    schema.OperatorCodeAddCustomCode(builder, name)
    code = schema.OperatorCodeEnd(builder)
    schema.ModelStartOperatorCodesVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(code)
    codes = builder.EndVector()
    subgraph = model.subgraphs[0].Pack(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def test_parts_that_are_referred_to_again_and_again(float_model):
    for read in (FlatBufferModel, bytes_by_kind):
        with pytest.raises(ValueError, match="refers to the same parts again and again"):
            read(_repeated(float_model.content, 3000))
    assert bytes_by_kind(_repeated(float_model.content, 1))["names"] > 2**20


def test_operators_that_feed_one_another_end_in_no_activation(float_model):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(float_model.content, 0))
    graph = model.subgraphs[0]
    place = len(model.operatorCodes)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    model.operatorCodes.append(code)
    first, second = int(graph.inputs[0]), int(graph.outputs[0])
    graph.operators = []
    for source, result in ((first, second), (second, first)):
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = place, [source], [result]
        graph.operators.append(operator)
    assert FlatBufferModel(packed(model, 1000)).output_activations() == ["NONE"]


def test_sparsity_that_all_tensors_share():
    """Unpacked, it would be there as often as it is referred to."""
    builder = flatbuffers.Builder()

    def table(name, **offsets):
        getattr(schema, f"{name}Start")(builder)
        for field, offset in offsets.items():
            getattr(schema, f"{name}Add{field}")(builder, offset)
        return getattr(schema, f"{name}End")(builder)

    def vector(start, offsets):
        getattr(schema, start)(builder, len(offsets))
        for offset in offsets:
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    dimension = table("DimensionMetadata")
    dimensions = vector("SparsityParametersStartDimMetadataVector", [dimension] * 20_000)
    sparsity = table("SparsityParameters", DimMetadata=dimensions)
    tensor = table("Tensor", Sparsity=sparsity)
    tensors = vector("SubGraphStartTensorsVector", [tensor] * 20_000)
    graphs = vector("ModelStartSubgraphsVector", [table("SubGraph", Tensors=tensors)])
    builder.Finish(table("Model", Subgraphs=graphs), file_identifier=b"TFL3")
    with pytest.raises(ValueError, match="refers to the same parts again and again"):
        FlatBufferModel(bytes(builder.Output()))
