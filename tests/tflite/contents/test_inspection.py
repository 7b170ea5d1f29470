import hashlib
import importlib.util
import json
import subprocess
import sys

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_kd import tflite
from keras_kd.tflite.contents.inspection import inspect_file
from keras_kd.tflite.conversion.converter import run_converter
from keras_kd.tflite.conversion.forms import FORMS, Options
from keras_kd.tflite.student import Signature


@pytest.fixture(scope="module")
def inspection(micro_model):
    return micro_model.inspect()


def test_an_integer_file(inspection, micro_model):
    assert inspection.size == micro_model.size == sum(inspection.bytes.values())
    assert inspection.operators == micro_model.operators
    assert inspection.float_operators == inspection.float_tensors == ()
    assert (inspection.inputs, inspection.outputs) == (micro_model.inputs, micro_model.outputs)
    assert inspection.schema_version == 3
    assert len(inspection.subgraphs) == 1
    assert "min_runtime_version" in inspection.metadata
    assert inspection.minimum_runtime.count(".") == 2
    assert inspection.sha256 == hashlib.sha256(micro_model.content).hexdigest()


def test_tensors_come_by_size(inspection):
    sizes = [tensor.bytes for tensor in inspection.tensors]
    assert sizes == sorted(sizes, reverse=True)
    dense, convolution = inspection.tensors[:2]
    assert (dense.type, dense.shape, dense.bytes) == ("INT8", (10, 288), 2880)
    assert (convolution.shape, convolution.scales) == ((8, 3, 3, 1), 8)
    assert sum(sizes) == inspection.bytes["weights"]


def test_what_stayed_in_float(student, images, float_model):
    in_float = float_model.inspect()
    assert "CONV_2D" in in_float.float_operators
    assert len(in_float.float_tensors) > 3
    phone = tflite.convert(student, "int8", images).inspect()
    # The inputs and outputs are floats, and nothing between them.
    assert phone.inputs[0].dtype == np.float32
    assert phone.float_tensors == phone.float_operators == ()


def test_bodies_of_loops_are_graphs():
    import keras

    student = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)])
    inspection = tflite.convert(student).inspect()
    assert len(inspection.subgraphs) == 3
    assert {tensor.subgraph for tensor in inspection.tensors} == {0, 1, 2}
    assert sum(inspection.bytes.values()) == inspection.size


def test_a_page_for_people(inspection, micro_model):
    text = str(inspection)
    assert "input   image   int8  [1, 8, 8, 1]" in text
    assert f"bytes         {inspection.size:,}" in text
    assert "FULLY_CONNECTED      1" in text
    assert "in floating point: no operator; no tensors between inputs and outputs" in text
    assert f"SHA-256: {inspection.sha256}" in text
    assert "2,880" in text
    assert max(map(len, text.splitlines())) <= 116


def test_many_tensors_and_long_names_are_cut():
    import keras

    layers = [
        keras.layers.Dense(3, activation="relu", name=f"{'very_' * 12}long_{i}") for i in range(14)
    ]
    student = keras.Sequential([keras.Input((3,)), *layers])
    content = run_converter(Signature(student), Options(FORMS["float32"]), None)
    inspection = tflite.TFLiteModel(content).inspect()
    text = str(inspection)
    stored = [tensor for tensor in inspection.tensors if tensor.bytes]
    assert f"and {len(stored) - 12} smaller ones" in text
    assert "\n..." in text
    assert max(map(len, text.splitlines())) <= 116


def test_json_has_all_of_it(inspection):
    plain = inspection.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["inputs"] == [
        {"name": "image", "shape": [1, 8, 8, 1], "dtype": "int8",
         "scale": inspection.inputs[0].scale, "zero_point": -128}
    ]  # fmt: skip
    assert plain["tensors"][0]["bytes"] == 2880
    assert plain["next_states"] == {}
    assert plain["bytes"] == inspection.bytes


def tiny(operator=schema.BuiltinOperator.CUSTOM, custom=None, shape=(2, 3), **changes):
    """A file with one operator from an input to an output, as no converter here writes it."""
    tensors = [
        schema.TensorT(shape=list(shape), type=schema.TensorType.INT8, buffer=0, name=name)
        for name in ("in", "out")
    ]
    graph = schema.SubGraphT(
        tensors=tensors,
        inputs=[0],
        outputs=[1],
        operators=[schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1])],
    )
    code = schema.OperatorCodeT(
        builtinCode=operator, deprecatedBuiltinCode=min(operator, 127), customCode=custom
    )
    model = schema.ModelT(
        version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()]
    )
    for path, value in changes.items():
        part = model if path in vars(model) else graph.operators[0]
        setattr(graph if path in ("inputs", "outputs", "tensors") else part, path, value)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("ethos-u", "an Arm Ethos-U"),
        ("edgetpu-custom-op", "a Coral Edge TPU"),
        ("FlexErf", "the Flex delegate"),
        ("SignalRfft", "its signal library"),
        ("TFLite_Detection_PostProcess", "LiteRT, and TensorFlow Lite Micro"),
        ("MyOwnOperator", "in which the app registers it"),
    ],
)
def test_files_that_no_runtime_here_loads(name, where):
    inspection = inspect_file(tiny(custom=name))
    assert inspection.operators == {name: 1}
    assert where in inspection.custom_operators[name]
    assert f"{name} runs on " in str(inspection)
    # The first size is not 1.
    assert [tensor.shape for tensor in inspection.inputs] == [(2, 3)]


def test_a_real_file_of_flex_operators_with_any_batch():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 3), tf.float32, name="matrix")])
    def inverse(matrix):
        return tf.linalg.inv(matrix)

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [inverse.get_concrete_function()], inverse
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    inspection = inspect_file(converter.convert())
    assert "Flex delegate" in inspection.custom_operators["FlexMatrixInverse"]
    assert inspection.inputs[0].shape == (None, 3, 3)
    assert "[any, 3, 3]" in str(inspection)


def test_class_names_and_normalization_are_shown(float_model):
    import keras

    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    android = tflite.android
    metadata = android.Metadata(["cat", "dog", "mouse"], mean=(1.0,), std=(255.0,))
    model = android.add_metadata(tflite.convert(student), metadata)
    said = model.inspect().described
    assert said.class_names == {"scores": ("cat", "dog", "mouse")}
    assert said.normalization == {"image": ((1.0,), (255.0,))}
    assert said.files == ("labels.txt",)
    text = str(model.inspect())
    assert "class names of scores: 3 (cat, dog, mouse)" in text
    assert "normalization of image: (x - 1) / 255" in text
    assert float_model.inspect().described.class_names == {}
    # Class names that are damaged are told of, and the rest is shown.
    start = model.content.rindex(b"cat\ndog")
    damaged = model.content[:start] + b"bat" + model.content[start + 3 :]
    said = inspect_file(damaged).described
    assert said.class_names == {}
    assert "Bad CRC-32" in said.error


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": [7]},
        {"outputs": [-1]},
        {"opcodeIndex": 3},
        {"operatorCodes": None},
        {"buffers": None},
        {"subgraphs": []},
        {"subgraphs": None},
        {"tensors": None},
    ],
    ids=str,
)
def test_references_to_nothing_are_refused(changes):
    with pytest.raises(ValueError, match="do not follow the schema"):
        inspect_file(tiny(custom="own", **changes))


def test_missing_lists_are_empty():
    inspection = inspect_file(tiny(custom="own", inputs=None, outputs=None))
    assert inspection.inputs == inspection.outputs == ()


def test_a_path(micro_model, tmp_path):
    micro_model.save(tmp_path / "model.tflite")
    assert tflite.inspect(tmp_path / "model.tflite") == micro_model.inspect()
    with pytest.raises(FileNotFoundError, match=r"a \.tflite file"):
        tflite.inspect(tmp_path / "missing.tflite")
    (tmp_path / "text.tflite").write_text("a page that says that the model was moved")
    with pytest.raises(ValueError, match="without the letters 'TFL3' at their place"):
        tflite.inspect(tmp_path / "text.tflite")


def test_no_runtime_and_no_keras_is_imported(micro_model, tmp_path):
    micro_model.save(tmp_path / "model.tflite")
    program = f"""
import sys, time
sys.argv = ["keras-kd"]
from keras_kd import cli
code = cli.main(["inspect", {str(tmp_path / "model.tflite")!r}])
heavy = {{"keras", "tensorflow", "ai_edge_litert.interpreter"}} & set(sys.modules)
seconds = time.process_time()
sys.exit(f"{{code}} {{heavy}} {{seconds}}" if code or heavy or seconds > 2 else 0)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr


IMAGES = np.random.default_rng(0).random((8, 8, 8, 2), np.float32)


def student(*body):
    head = [keras.layers.Flatten(), keras.layers.Dense(30, name="scores")]
    return keras.Sequential([keras.Input((8, 8, 2), name="image"), *body, *head])


@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None, reason="no ai-edge-quantizer"
)
@pytest.mark.parametrize(
    ("body", "form", "oldest"),
    [
        # Each was tried in the version and in the one before; the file says 1.5.0.
        ([keras.layers.Conv2D(16, 3)], "int4", "2.19.0"),
        ([], "int4", "2.14.0"),
        ([], "dynamic_int8", "2.16.2"),
        ([], "float16", "1.5.0"),
    ],
)
def test_what_ai_edge_quantizer_does_not_say(body, form, oldest):
    model = tflite.convert(student(*body), recipe={"*": form})
    stored = model.flatbuffer.metadata("min_runtime_version").rstrip(b"\0")
    assert stored == b"1.5.0"
    inspection = model.inspect()
    assert inspection.minimum_runtime == oldest
    assert f"oldest runtime: TensorFlow Lite {oldest}" in str(inspection)
    assert ("LiteRT 1.1.1" in str(inspection)) == (oldest == "2.19.0")


def test_what_the_converter_says_stays():
    """It asks for a version that knows scales for each channel of a dense layer."""
    model = tflite.convert(student(), "dynamic_int8")
    assert model.inspect().minimum_runtime == "2.17.0"


def test_a_file_that_says_nothing():
    model = tflite.convert(student())
    silent = tflite.TFLiteModel(model.flatbuffer.with_metadata("min_runtime_version", b""))
    assert silent.inspect().minimum_runtime is None
    assert "oldest runtime: unknown" in str(silent.inspect())
    other = tflite.TFLiteModel(model.flatbuffer.with_metadata("min_runtime_version", b"9" * 5000))
    assert other.inspect().minimum_runtime == "9" * 5000
