import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

from keras_kd import tflite
from keras_kd._model_files import load_model
from keras_kd._model_files.operations import CHECKPOINT, HARMLESS

# They have state, or choose by it, but none that outlives the model.
STATEFUL = {
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "AssignVariableOp",
    "Case",
    "DisableCopyOnRead",
    "If",
    "RandomShuffle",
    "RandomStandardNormal",
    "RandomUniform",
    "RandomUniformInt",
    "ReadVariableOp",
    "ResourceGather",
    "ResourceGatherNd",
    "StatefulPartitionedCall",
    "StatelessRandomGetAlg",
    "TruncatedNormal",
    "VarHandleOp",
    "VarIsInitializedOp",
    "VariableShape",
    "While",
}


def test_what_is_let_in_neither_knows_strings_nor_has_other_state():
    for name in HARMLESS:
        definition = op_def_registry.get(name)
        assert definition is not None, f"TensorFlow has no operation {name}"
        arguments = [*definition.input_arg, *definition.output_arg]
        assert all(a.type != tf.string.as_datatype_enum for a in arguments), name
        if name not in STATEFUL and not name.startswith("CudnnRNN"):
            assert not definition.is_stateful, name
    assert not HARMLESS & CHECKPOINT


def two_inputs():
    first, second = keras.Input((3,), name="first"), keras.Input((4,), name="second")
    joined = keras.layers.Concatenate()([first, second])
    outputs = {"sum": keras.layers.Dense(2)(joined), "alone": keras.layers.Dense(1)(first)}
    return keras.Model({"first": first, "second": second}, outputs)


def image():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.UpSampling2D(interpolation="bilinear"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(0.5),
            keras.layers.Softmax(),
        ]
    )


def words():
    inputs = keras.Input((6,), dtype="int32", name="words")
    vectors = keras.layers.Embedding(10, 8)(inputs)
    vectors = keras.layers.MultiHeadAttention(2, 4)(vectors, vectors) + vectors
    return keras.Model(inputs, keras.layers.Flatten()(keras.layers.LayerNormalization()(vectors)))


@pytest.mark.parametrize("build", [two_inputs, image, words])
def test_computes_what_the_model_did_and_converts(build, tmp_path):
    keras.utils.set_random_seed(0)
    model = build()
    model.export(tmp_path / "exported", verbose=False)
    loaded = load_model(tmp_path / "exported")
    x = {
        tensor.name: np.random.default_rng(0).integers(0, 9, (4, *tensor.shape[1:]))
        for tensor in model.inputs
    }
    x = {tensor.name: x[tensor.name].astype(tensor.dtype) for tensor in model.inputs}
    file = tflite.convert(loaded)
    assert {tensor.name for tensor in file.inputs} == set(x)
    received = file.predict_by_name(x)
    expected = model.predict(x if len(x) > 1 else next(iter(x.values())), verbose=0)
    if not isinstance(expected, dict):
        expected = {"output": expected}
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, atol=2e-5)


SPEC = tf.TensorSpec((None, 3), tf.float32, name="x")


def write(path):
    return lambda x: (tf.io.write_file(path, "here"), x + 1)[1]


def read(path):
    return lambda x: x + tf.cast(tf.strings.length(tf.io.read_file(path)), tf.float32)


def run_python(path):
    return lambda x: tf.numpy_function(lambda value: value, [x], tf.float32)


def log(path):
    return lambda x: (tf.print("here", output_stream=f"file://{path}"), x + 1)[1]


def save(path):
    def function(x):
        tf.raw_ops.SaveV2(prefix=path, tensor_names=["x"], shape_and_slices=[""], tensors=[x])
        return x + 1

    return function


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        (write, "WriteFile"),
        (read, "ReadFile"),
        (run_python, "PyFunc"),
        (log, "PrintV2"),
        (save, "SaveV2"),
    ],
)
def test_programs_that_do_more_than_compute(kind, operation, tmp_path):
    proof = tmp_path / "proof"
    module = tf.Module()
    module.serve = tf.function(kind(str(proof)), input_signature=[SPEC])
    tf.saved_model.save(module, str(tmp_path / "evil"), signatures=module.serve)
    with pytest.raises(ValueError, match=rf"it has the operations .*{operation}.* may do more"):
        load_model(tmp_path / "evil")
    assert not list(tmp_path.glob("proof*"))


@pytest.fixture
def exported(model, tmp_path):
    model.export(tmp_path / "exported", verbose=False)
    return tmp_path / "exported"


@pytest.fixture
def edited(exported):
    def edit(change):
        file = exported / "saved_model.pb"
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString(file.read_bytes())
        change(saved.meta_graphs[0])
        file.write_bytes(saved.SerializeToString())
        return exported

    return edit


def test_the_function_that_saves_may_not_be_called(edited):
    def call_saver(graph):
        functions = {f.signature.name: f for f in graph.graph_def.library.function}
        saver = next(name for name in functions if "traced_save" in name)
        served = next(f for name, f in functions.items() if "signature_wrapper" in name)
        call = next(node for node in served.node_def if "Call" in node.op)
        call.attr["f"].func.name = saver

    with pytest.raises(ValueError, match=r"it has the operations .*SaveV2"):
        load_model(edited(call_saver))


def test_the_function_that_saves_may_not_be_an_object(edited):
    def expose_saver(graph):
        for function in graph.graph_def.library.function:
            if "traced_save" in function.signature.name:
                graph.object_graph_def.concrete_functions[function.signature.name].SetInParent()

    with pytest.raises(ValueError, match=r"it has the operations .*SaveV2"):
        load_model(edited(expose_saver))


def test_the_function_that_saves_may_not_stand_for_others(edited):
    def pretend(graph):
        for function in graph.graph_def.library.function:
            if "traced_save" in function.signature.name:
                function.attr["api_implements"].s = b"dense"

    with pytest.raises(ValueError, match="can stand for others"):
        load_model(edited(pretend))


def test_variables_far_larger_than_the_files(edited):
    def enlarge(graph):
        for node in graph.object_graph_def.nodes:
            if node.HasField("variable"):
                node.variable.shape.dim[0].size = 10**12

    with pytest.raises(ValueError, match=r"its variable .* declares \d{13,} bytes"):
        load_model(edited(enlarge))


def test_variables_are_added_up(tmp_path):
    """Each is in proportion: all of them together are not, for files of so few bytes."""
    module = tf.Module()
    module.many = [tf.Variable(tf.zeros(2)) for _ in range(8)]
    module.serve = tf.function(lambda x: x + module.many[0][0], input_signature=[SPEC])
    tf.saved_model.save(module, str(tmp_path / "many"), signatures=module.serve)
    file = tmp_path / "many" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for node in saved.meta_graphs[0].object_graph_def.nodes:
        if node.HasField("variable") and node.variable.shape.dim:
            node.variable.shape.dim[0].size = 4_000_000
    file.write_bytes(saved.SerializeToString())
    with pytest.raises(ValueError, match="the sum of its variables and constants declares 1280"):
        load_model(tmp_path / "many")


def test_a_constant_that_is_stored_as_one_value(edited):
    def enlarge(graph):
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "Const":
                    tensor = node.attr["value"].tensor
                    del tensor.tensor_shape.dim[:]
                    tensor.tensor_shape.dim.add().size = 10**10
                    return

    with pytest.raises(ValueError, match=r"its constant .* declares \d{11,} bytes"):
        load_model(edited(enlarge))


def in_a_loop(x):
    def body(step, x):
        return step + 1, x + tf.reduce_mean(tf.tile(x, (1, 10**9)))

    return tf.while_loop(lambda step, x: step < 2, body, (0, x))[1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.reduce_mean(tf.tile(x, (1, 10**9)), axis=1, keepdims=True),
        lambda x: x + tf.reduce_mean(tf.zeros((10**6, 10**6))),
        lambda x: tf.add_n([tf.tile(x, (1, 4 * 10**7)) for _ in range(20)]),
        in_a_loop,
    ],
)
def test_results_that_fill_the_memory(function, tmp_path):
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[SPEC])
    tf.saved_model.save(module, str(tmp_path / "giant"), signatures=module.serve)
    with pytest.raises(ValueError, match=r"its operations hold \d{10,} bytes at one time"):
        load_model(tmp_path / "giant")


def test_of_tensorflow_1(edited):
    with pytest.raises(ValueError, match="written by TensorFlow 1"):
        load_model(edited(lambda graph: graph.ClearField("object_graph_def")))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_cut_off(name, share, exported):
    content = (exported / name).read_bytes()
    (exported / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="which is refused"):
        load_model(exported)


@pytest.mark.parametrize("shape", [(1, 3), ()])
def test_a_batch_in_front_is_needed(shape, tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec(shape, tf.float32, name="x")
    module.serve = tf.function(lambda x: x + 1, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "fixed"), signatures=module.serve)
    with pytest.raises(ValueError, match="without a batch of any size"):
        load_model(tmp_path / "fixed")


def test_one_signature_of_another_name_is_taken_and_two_are_not(tmp_path):
    module = tf.Module()
    module.one = tf.function(lambda x: {"result": x + 1}, input_signature=[SPEC])
    tf.saved_model.save(module, str(tmp_path / "one"), signatures={"infer": module.one})
    assert load_model(tmp_path / "one").output_shape == (None, 3)
    signatures = {"infer": module.one, "again": module.one}
    tf.saved_model.save(module, str(tmp_path / "two"), signatures=signatures)
    with pytest.raises(ValueError, match=r"signatures \['again', 'infer'\]"):
        load_model(tmp_path / "two")
