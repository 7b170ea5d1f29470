from pathlib import Path

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


@pytest.mark.fast_rows(1)
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

    with pytest.raises(ValueError, match="can represent others"):
        load_model(edited(pretend))


def save_to(path):
    """A function of one tensor that writes it to a file."""

    def function(x):
        tf.raw_ops.SaveV2(prefix=path, tensor_names=["x"], shape_and_slices=[""], tensors=[x])
        return x

    return function


def move_to(path):
    """A function of one tensor that moves a file."""

    def function(x):
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[f"{path}.old"], destination_prefix=path, delete_old_dirs=True
        )
        return x

    return function


def add_saver(graph, name, function):
    """Put a function in the place of the one that saves variables, under a name."""
    saver = graph.saver_def.save_tensor_name.split(":")[0]
    function_of_saver = next(n for n in graph.graph_def.node if n.name == saver).attr["f"].func
    library = graph.graph_def.library.function
    library.remove(next(f for f in library if f.signature.name == function_of_saver.name))
    function_of_saver.name = name
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((None, 3), tf.float32))
    added = library.add()
    added.CopyFrom(concrete.function_def)
    added.signature.name = name


def served(graph):
    """The function that computes what is served."""
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    return next(f for f in functions.values() if any(n.op == "Relu" for n in f.node_def))


@pytest.fixture
def program(tmp_path):
    """A program with the operation Relu, and how to change it."""
    module = tf.Module()
    module.weight = tf.Variable([1.0, -2.0, 3.0])
    module.serve = tf.function(lambda x: tf.nn.relu(x * module.weight), input_signature=[SPEC])
    path = tmp_path / "program"
    tf.saved_model.save(module, str(path), signatures=module.serve)

    def edit(change):
        file = path / "saved_model.pb"
        saved = saved_model_pb2.SavedModel()
        saved.ParseFromString(file.read_bytes())
        change(saved.meta_graphs[0])
        file.write_bytes(saved.SerializeToString())
        return path

    return edit


def check_computes(model):
    x = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(model(x), [[1, 0, 3], [0, 2, 6]])


@pytest.mark.parametrize("kind", [save_to, move_to])
def test_a_function_with_the_name_of_an_operation(kind, program, tmp_path):
    """TensorFlow's loader takes the function where a node says Relu."""

    def pretend(graph):
        add_saver(graph, "Relu", kind(str(tmp_path / "proof")))

    with pytest.raises(ValueError, match="functions with the names of operations: Relu"):
        load_model(program(pretend))(np.ones((1, 3), np.float32))
    assert not list(tmp_path.glob("proof*"))


def test_a_function_that_saves_is_not_called_as_an_operation(program, tmp_path):
    def call_saver(graph):
        add_saver(graph, "writes", save_to(str(tmp_path / "proof")))
        next(node for node in served(graph).node_def if node.op == "Relu").op = "writes"

    with pytest.raises(ValueError, match=r"it has the operations SaveV2"):
        load_model(program(call_saver))(np.ones((1, 3), np.float32))
    assert not list(tmp_path.glob("proof*"))


@pytest.mark.parametrize("place", ["gradient", "registered_gradients"])
def test_a_function_that_saves_is_no_gradient(place, program, tmp_path):
    def differentiate(graph):
        add_saver(graph, "writes", save_to(str(tmp_path / "proof")))
        gradient = getattr(graph.graph_def.library, place).add()
        gradient.gradient_func = "writes"
        if place == "gradient":
            gradient.function_name = served(graph).signature.name
        else:
            gradient.registered_op_type = "Relu"

    with pytest.raises(ValueError, match=r"it has the operations SaveV2"):
        load_model(program(differentiate))


def test_nothing_but_what_is_served_is_loaded(program, tmp_path, monkeypatch):
    """Its savers, gradients and other objects stay in the file."""
    loaded_from = []

    def load(path, *arguments, original=tf.saved_model.load, **options):
        loaded_from.append(saved_model_pb2.SavedModel())
        loaded_from[-1].ParseFromString((Path(path) / "saved_model.pb").read_bytes())
        return original(path, *arguments, **options)

    def decorate(graph):
        add_saver(graph, "writes", save_to(str(tmp_path / "proof")))
        served(graph).attr["api_implements"].s = b"relu"
        served(graph).node_def[0].attr["_gradient_op_type"].s = b"PartitionedCall-1"
        # It would import another Keras.
        other = graph.object_graph_def.nodes.add()
        other.user_object.identifier = "optimizer"
        asset = graph.object_graph_def.nodes.add()
        asset.asset.asset_file_def_index = 7
        for node_id, name in enumerate(("optimizer", "asset"), len(graph.object_graph_def.nodes)):
            graph.object_graph_def.nodes[0].children.add(node_id=node_id - 2, local_name=name)

    monkeypatch.setattr(tf.saved_model, "load", load)
    check_computes(load_model(program(decorate)))
    (saved,) = loaded_from
    text = str(saved)
    for word in ("SaveV2", "RestoreV2", "writes", "optimizer", "asset", "api_impl", "_gradient"):
        assert word not in text, word
    assert len(saved.meta_graphs[0].object_graph_def.nodes) == 3
    assert not list(tmp_path.glob("proof*"))


def test_functions_within_functions_and_functions_that_are_not_there(program):
    def nest(graph):
        node = next(node for node in served(graph).node_def if node.op == "Relu")
        node.attr["f"].func.name = served(graph).signature.name
        node.attr["f"].func.attr["g"].func.name = "elsewhere"

    with pytest.raises(ValueError, match="has a function within a function"):
        load_model(program(nest))

    def forget(graph):
        served(graph).node_def[0].attr["f"].func.name = "__inference_elsewhere_1"

    with pytest.raises(ValueError, match="the function '__inference_elsewhere_1', which it does"):
        load_model(program(forget))


def test_a_constant_that_stands_for_a_variable_of_the_process(program):
    def point(graph):
        added = served(graph).node_def.add(name="handle", op="Const")
        added.attr["dtype"].type = tf.resource.as_datatype_enum
        added.attr["value"].tensor.dtype = tf.resource.as_datatype_enum
        added.attr["value"].tensor.resource_handle_val.add().name = "weight"

    with pytest.raises(ValueError, match="its constant 'handle' is a handle"):
        load_model(program(point))


@pytest.mark.parametrize("kind", ["asset", "resource", "user_object"])
def test_what_a_function_needs_is_a_variable_or_a_constant(kind, program):
    def need(graph):
        for function in graph.object_graph_def.concrete_functions.values():
            for node_id in function.bound_inputs:
                getattr(graph.object_graph_def.nodes[node_id], kind).SetInParent()

    with pytest.raises(ValueError, match=f"its function needs a {kind}, which is not loaded"):
        load_model(program(need))


def test_types_of_other_packages_are_not_made(program):
    def structure(graph):
        for function in graph.object_graph_def.concrete_functions.values():
            function.output_signature.type_spec_value.type_spec_class_name = "anything"

    with pytest.raises(ValueError, match="inputs or outputs of its function have a type_spec"):
        load_model(program(structure))


def test_variables_that_the_files_do_not_hold(program):
    def widen(graph):
        for node in graph.object_graph_def.nodes:
            if node.HasField("variable"):
                node.variable.shape.dim[0].size = 5

    with pytest.raises(ValueError, match="its variable 'Variable' is another one in its files"):
        load_model(program(widen))

    def unlink(graph):
        for child in graph.object_graph_def.nodes[0].children:
            child.local_name = child.local_name.replace("weight", "other")

    with pytest.raises(ValueError, match="its files do not hold its variable 'Variable'"):
        load_model(program(unlink))


def test_constants_and_variables_of_all_kinds(tmp_path):
    module = tf.Module()
    module.kept = [tf.Variable([1.0, 2.0, 3.0]), {"a": tf.Variable(2, dtype=tf.int64)}]
    module.half = tf.Variable(0.5, dtype=tf.bfloat16)
    constant = tf.constant(np.arange(3, dtype=np.float32))

    def serve(x):
        x = x * module.kept[0] + constant
        return x * tf.cast(module.kept[1]["a"], tf.float32) * tf.cast(module.half, tf.float32)

    module.serve = tf.function(serve, input_signature=[SPEC])
    tf.saved_model.save(module, str(tmp_path / "kinds"), signatures=module.serve)
    model = load_model(tmp_path / "kinds")
    np.testing.assert_array_equal(model(np.ones((1, 3), np.float32)), [[1, 3, 5]])
    assert not model.trainable_variables
    assert sorted(tuple(weight.shape) for weight in model.weights) == [(), (), (3,)]


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


@pytest.mark.parametrize(
    "share", [0.4, *(pytest.param(end, marks=pytest.mark.slow) for end in (0.0, 0.9))]
)
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


@pytest.mark.parametrize("name", ["saved_model.pb", "variables", "variables/variables.index"])
def test_links_are_not_followed(name, exported, tmp_path):
    (exported / name).rename(tmp_path / "elsewhere")
    (exported / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"its {name} is a link"):
        load_model(exported)


@pytest.mark.parametrize("kind", [tf.constant, tf.Variable])
def test_words_as_a_constant_or_a_variable(kind, tmp_path):
    """Each of many equal ones takes its own memory, and is stored once."""
    module = tf.Module()
    module.kept = words = kind(["a" * 1000] * 4)
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    function = tf.function(lambda x: {"y": x + tf.cast(tf.size(words), tf.float32)}, [spec])
    tf.saved_model.save(module, str(tmp_path / "words"), signatures=function)
    with pytest.raises(ValueError, match="holds strings"):
        load_model(tmp_path / "words")
