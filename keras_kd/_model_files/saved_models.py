"""SavedModels: programs of TensorFlow, read before they are loaded.

TensorFlow's own loader makes all objects of a SavedModel, calls functions of it to restore them,
and registers gradients. None of this happens to a program that comes from anywhere: it is checked
as a whole, and then the function that it serves goes to the loader alone, with the functions that
it calls. The variables are read here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_kd._memory import check_expansion, check_results, size_of
from keras_kd._model_files.operations import CHECKPOINT, HARMLESS
from keras_kd._model_files.stored import SAVED_MODEL

# DT_STRING of TensorFlow's types.proto.
_STRING = 7
# What TensorFlow's own tools name the function that devices and servers call.
_USUAL_SIGNATURES = ("serving_default", "serve")
_INTERNAL_SIGNATURE = "__saved_model_"
_MOST_BYTES = 2**31
# The attributes that a function may have; others would let it replace other functions.
_FUNCTION_ATTRIBUTES = ("_construction_context", "_input_shapes")
# Python's gradients, and how a runtime is set up for a call: neither is of the file's choice.
_NODE_ATTRIBUTES_LEFT_OUT = ("_gradient_op_type", "config", "config_proto", "executor_type")
# What a function's inputs and outputs may be made of.
_STRUCTURES = {
    "dict_value",
    "list_value",
    "none_value",
    "tensor_spec_value",
    "tuple_value",
}


def load(path: Path, custom_objects: dict[str, Any]) -> keras.Model:
    """A Keras model that calls the function that the SavedModel serves.

    Its inputs and outputs have the names of the function's. Custom objects play no part.

    Raises:
        ValueError: if the program could do anything but compute, or if it has no function with a
            batch in front of every input.
        Exception: any, for damaged files.
    """
    _check_own_files(path)
    graph = _meta_graph(path)
    _check_program(graph, path)
    function, variables = _served(graph, path)
    check_results("operations", function.graph, _described)
    _, specs = function.structured_input_signature
    inputs = {
        name: keras.Input(_shape_of_example(spec), name=name, dtype=spec.dtype.name)
        for name, spec in specs.items()
    }
    outputs = _saved_function()(function, variables)(inputs)
    if len(outputs) == 1:
        (name,) = outputs
        name = "output" if re.fullmatch(r"output_\d+", name) else name
        outputs = keras.layers.Identity(name=name)(*outputs.values())
    if len(inputs) == 1:
        (inputs,) = inputs.values()
    return keras.Model(inputs, outputs, name=re.sub(r"\W", "_", path.resolve().name) or None)


def _saved_function() -> type:
    """The class of the layer; made when needed, because TensorFlow is imported only then."""

    class SavedFunction(keras.layers.Layer):
        """Calls a function of TensorFlow, and passes each input by its name."""

        def __init__(self, function: Any, variables: list[Any]) -> None:
            super().__init__(trainable=False)
            self.function = function
            # A variable of Keras holds that of TensorFlow, which exporters need.
            self.held = [
                keras.Variable(
                    variable,
                    dtype=variable.dtype.name,
                    trainable=False,
                    name=variable.name.split(":")[0].replace("/", "_"),
                )
                for variable in variables
            ]
            self.built = True

        def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return self.function(**inputs)

    return SavedFunction


def _check_own_files(path: Path) -> None:
    """Refuse links and anything else that is no file of the directory itself."""
    variables = path / "variables"
    for file in (
        path / SAVED_MODEL,
        *([variables, *variables.iterdir()] if variables.exists() else []),
    ):
        is_kind = file.is_dir() if file == variables else file.is_file()
        if file.is_symlink() or not is_kind:
            raise ValueError(f"its {file.relative_to(path)} is a link, or no file")


def _check_program(graph: Any, path: Path) -> None:
    """Refuse programs that could read or write files, run Python, or have unreviewed operations.

    Functions that TensorFlow writes for saving and restoring do read and write files. They are let
    in if nothing else in the program can call them, and are never loaded.
    """
    from tensorflow.python.framework import op_def_registry

    library = graph.graph_def.library
    names = {function.signature.name for function in library.function}
    if len(names) != len(library.function):
        raise ValueError("it has two functions of one name")
    # The loader would call the function where the operation is meant.
    operations = sorted(name for name in names if op_def_registry.get(name) is not None)
    if operations:
        raise ValueError(f"it has functions with the names of operations: {operations[0]}")
    savers = _saver_functions(graph)
    for function in library.function:
        allowed = HARMLESS
        if function.signature.name in savers:
            allowed = HARMLESS | CHECKPOINT
            if any("implements" in attribute for attribute in function.attr):
                raise ValueError("it has a function for saving that can represent others")
        _check_nodes(function.node_def, allowed, names)
    _check_nodes(graph.graph_def.node, HARMLESS, names)
    _check_variables(graph, path)


def _meta_graph(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / SAVED_MODEL
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"its {SAVED_MODEL} has over {_MOST_BYTES} bytes")
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(file.read_bytes())
    if len(saved.meta_graphs) != 1:
        raise ValueError(f"it has {len(saved.meta_graphs)} graphs and not one")
    (graph,) = saved.meta_graphs
    if not graph.HasField("object_graph_def"):
        raise ValueError("it was written by TensorFlow 1, or damaged")
    return graph


def _saver_functions(graph: Any) -> set[str]:
    """The functions that only what saves and restores the variables calls."""
    saver = {graph.saver_def.save_tensor_name.split(":")[0], graph.saver_def.restore_op_name}
    nodes, library = graph.graph_def.node, graph.graph_def.library
    of_savers = set(_called(node for node in nodes if node.name in saver))
    of_others = set(_called(node for node in nodes if node.name not in saver))
    for function in library.function:
        of_others |= set(_called(function.node_def))
    of_others |= set(graph.object_graph_def.concrete_functions)
    of_others |= {gradient.gradient_func for gradient in library.gradient}
    of_others |= {gradient.gradient_func for gradient in library.registered_gradients}
    return of_savers - of_others


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    """The functions that nodes call: as an attribute, or as an operation."""
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield from (
                function.name for function in [value.func, *value.list.func] if function.name
            )


def _check_nodes(nodes: Iterable[Any], allowed: frozenset[str], functions: set[str]) -> None:
    nodes = list(nodes)
    refused = sorted({node.op for node in nodes} - allowed - functions)
    if refused:
        raise ValueError(
            f"it has the operations {', '.join(refused[:5])}, which may do more than compute"
        )
    missing = sorted(set(_called(nodes)) - allowed - functions)
    if missing:
        raise ValueError(f"it calls the function {missing[0]!r}, which it does not have")
    for node in nodes:
        for value in node.attr.values():
            for function in [value.func, *value.list.func]:
                if any(x.func.name or x.list.func for x in function.attr.values()):
                    raise ValueError(f"its node {node.name!r} has a function within a function")


def _served(graph: Any, path: Path) -> tuple[Any, list[Any]]:
    """The function that a program serves, loaded, and its variables, with their values."""
    import tensorflow as tf

    name, nodes = _signature(graph), graph.object_graph_def.nodes
    root = nodes[0]
    for child in ("signatures", name):
        ids = [x.node_id for x in root.children if x.local_name == child]
        if len(ids) != 1:
            raise ValueError(f"it has no function for its signature {name!r}")
        root = nodes[ids[0]]
    function = root.bare_concrete_function
    if not root.HasField("bare_concrete_function"):
        raise ValueError(f"its signature {name!r} is no function")
    bound = graph.object_graph_def.concrete_functions[function.concrete_function_name].bound_inputs
    variables = list(dict.fromkeys(x for x in bound if nodes[x].HasField("variable")))
    alone = _program_of(graph, function, variables)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / SAVED_MODEL).write_bytes(alone.SerializeToString())
        options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=True)
        loaded = tf.saved_model.load(directory, options=options)
    made = [getattr(loaded, f"variable_{number}") for number in range(len(variables))]
    for variable, value in zip(made, _values(graph, path, variables), strict=True):
        variable.assign(value)
    return loaded.function, made


def _program_of(graph: Any, function: Any, variables: list[int]) -> Any:
    """A program with one function, what it calls, its variables and constants, and nothing else."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    alone = saved.meta_graphs.add()
    alone.meta_info_def.tags.append("serve")
    alone.graph_def.versions.CopyFrom(graph.graph_def.versions)
    for needed in _reachable(graph, function.concrete_function_name):
        alone.graph_def.library.function.append(_plain(needed))
    objects = alone.object_graph_def
    root = _user_object(objects)
    bare = _child(objects, root, "function").bare_concrete_function
    bare.concrete_function_name = function.concrete_function_name
    bare.argument_keywords.extend(function.argument_keywords)
    bare.allowed_positional_arguments = function.allowed_positional_arguments
    numbers = {}
    for number, node_id in enumerate(variables):
        numbers[node_id] = len(objects.nodes)
        made = _child(objects, root, f"variable_{number}").variable
        old = graph.object_graph_def.nodes[node_id].variable
        made.dtype, made.name = old.dtype, old.name
        made.shape.CopyFrom(old.shape)
    old = graph.object_graph_def.concrete_functions[function.concrete_function_name]
    for node_id in old.bound_inputs:
        if node_id not in numbers:
            numbers[node_id] = len(objects.nodes)
            _add_constant(graph, alone, node_id)
    new = objects.concrete_functions[function.concrete_function_name]
    new.bound_inputs.extend(numbers[node_id] for node_id in old.bound_inputs)
    for place in ("canonicalized_input_signature", "output_signature"):
        _check_structure(getattr(old, place))
        getattr(new, place).CopyFrom(getattr(old, place))
    return saved


def _user_object(objects: Any) -> Any:
    node = objects.nodes.add()
    node.user_object.identifier = "_generic_user_object"
    node.user_object.version.producer = node.user_object.version.min_consumer = 1
    return node


def _child(objects: Any, parent: Any, name: str) -> Any:
    parent.children.add(node_id=len(objects.nodes), local_name=name)
    return objects.nodes.add()


def _add_constant(graph: Any, alone: Any, node_id: int) -> None:
    kept = graph.object_graph_def.nodes[node_id]
    name = kept.constant.operation
    found = [node for node in graph.graph_def.node if node.name == name and node.op == "Const"]
    if not kept.HasField("constant") or len(found) != 1:
        raise ValueError(f"its function needs a {kept.WhichOneof('kind')}, which is not loaded")
    _check_constants(found)
    if found[0].attr["value"].tensor.dtype == _STRING:
        # One word can be stored for many, and each takes its own memory when it is handed over.
        raise ValueError(f"its constant {name!r} holds strings")
    alone.graph_def.node.append(found[0])
    alone.object_graph_def.nodes.add().constant.operation = name


def _reachable(graph: Any, name: str) -> list[Any]:
    """A function and all that it calls, checked as what will run."""
    functions = {x.signature.name: x for x in graph.graph_def.library.function}
    names = set(functions)
    found, pending = {}, [name]
    while pending:
        name = pending.pop()
        if name in found or (name in HARMLESS and name not in functions):
            continue
        if name not in functions:
            raise ValueError(f"it calls the function {name!r}, which it does not have")
        found[name] = functions[name]
        _check_nodes(found[name].node_def, HARMLESS, names)
        _check_constants(found[name].node_def)
        pending.extend(_called(found[name].node_def))
    return list(found.values())


def _plain(function: Any) -> Any:
    """A function without attributes by which it, or a node in it, would be more than declared."""
    plain = type(function)()
    plain.CopyFrom(function)
    for key in set(plain.attr) - set(_FUNCTION_ATTRIBUTES):
        del plain.attr[key]
    for node in plain.node_def:
        for key in set(node.attr) & set(_NODE_ATTRIBUTES_LEFT_OUT):
            del node.attr[key]
    return plain


def _check_constants(nodes: Iterable[Any]) -> None:
    """Refuse constants that are no values but represent something in the memory of this process."""
    import tensorflow as tf

    for node in nodes:
        for value in node.attr.values():
            for tensor in (value.tensor, *value.list.tensor):
                if tensor.dtype in (tf.resource.as_datatype_enum, tf.variant.as_datatype_enum):
                    raise ValueError(f"its constant {node.name!r} is a handle")


def _check_structure(value: Any) -> None:
    kind = value.WhichOneof("kind")
    if kind not in (None, *_STRUCTURES):
        raise ValueError(f"the inputs or outputs of its function have a {kind}")
    if kind == "dict_value":
        for item in value.dict_value.fields.values():
            _check_structure(item)
    elif kind in ("list_value", "tuple_value"):
        for item in getattr(value, kind).values:
            _check_structure(item)


def _check_variables(graph: Any, path: Path) -> None:
    """Refuse variables and constants that are far larger than the files that they are stored in."""
    stored = sum(file.stat().st_size for file in (path / SAVED_MODEL, *path.glob("variables/*")))
    declared = 0
    for node in graph.object_graph_def.nodes:
        if node.HasField("variable"):
            if node.variable.dtype == _STRING:
                raise ValueError(f"its variable {node.variable.name!r} holds strings")
            size = _bytes_of(node.variable.shape, node.variable.dtype)
            check_expansion(f"its variable {node.variable.name!r}", size, stored)
            declared += size
    functions = (function.node_def for function in graph.graph_def.library.function)
    for node in chain(graph.graph_def.node, *functions):
        for value in node.attr.values():
            # A constant of equal values is stored as one of them.
            for tensor in [value.tensor] if value.HasField("tensor") else value.list.tensor:
                size = _bytes_of(tensor.tensor_shape, tensor.dtype)
                check_expansion(f"its constant {node.name!r}", size, stored)
                declared += size
    check_expansion("the sum of its variables and constants", declared, stored)


def _bytes_of(shape: Any, dtype: int) -> int:
    import tensorflow as tf

    return size_of((dimension.size for dimension in shape.dim), tf.as_dtype(dtype).name)


def _described(graph: Any) -> tuple[list[tuple], list[int]]:
    """A graph for `check_results`; what is computed inside a step are functions that it calls."""
    steps = [
        (
            operation.name,
            [id(tensor) for tensor in operation.inputs],
            {id(tensor): _bytes_of_tensor(tensor) for tensor in operation.outputs},
            [
                graph._functions[name].graph
                for name in _called([operation.node_def])
                if name in graph._functions
            ],
        )
        for operation in graph.get_operations()
    ]
    return steps, [id(tensor) for tensor in graph.outputs]


def _bytes_of_tensor(tensor: Any) -> int:
    rank = tensor.shape.rank
    return size_of(tensor.shape, tensor.dtype.name) if rank is not None else 0


def _values(graph: Any, path: Path, variables: list[int]) -> Iterator[np.ndarray]:
    """The declared contents of variables."""
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    if not variables:
        return
    reader = tf.compat.v1.train.NewCheckpointReader(str(path / "variables" / "variables"))
    stored = trackable_object_graph_pb2.TrackableObjectGraph()
    stored.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    ids = _ids_in_files(graph.object_graph_def.nodes, stored.nodes)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for node_id in variables:
        variable = graph.object_graph_def.nodes[node_id].variable
        attributes = stored.nodes[ids[node_id]].attributes if node_id in ids else []
        keys = [x.checkpoint_key for x in attributes if x.name == "VARIABLE_VALUE"]
        shape = [dimension.size for dimension in variable.shape.dim]
        if len(keys) != 1 or keys[0] not in shapes:
            raise ValueError(f"its files do not hold its variable {variable.name!r}")
        if shapes[keys[0]] != shape or dtypes[keys[0]] != variable.dtype:
            raise ValueError(f"its variable {variable.name!r} is another one in its files")
        yield reader.get_tensor(keys[0])


def _ids_in_files(nodes: Any, stored: Any) -> dict[int, int]:
    """The objects of a program by their numbers in its files, where they are numbered anew."""
    ids, pending = {0: 0}, [0]
    while pending:
        node_id = pending.pop()
        in_files = {x.local_name: x.node_id for x in stored[ids[node_id]].children}
        for child in nodes[node_id].children:
            if child.local_name in in_files and child.node_id not in ids:
                ids[child.node_id] = in_files[child.local_name]
                pending.append(child.node_id)
    return ids


def _signature(graph: Any) -> str:
    signatures = [name for name in graph.signature_def if not name.startswith(_INTERNAL_SIGNATURE)]
    for name in _USUAL_SIGNATURES:
        if name in signatures:
            return name
    if len(signatures) != 1:
        raise ValueError(f"it has the signatures {sorted(signatures)}, and none is serving_default")
    return signatures[0]


def _shape_of_example(spec: Any) -> tuple[int | None, ...]:
    if spec.shape.rank is None or spec.shape.rank == 0 or spec.shape[0] is not None:
        raise ValueError(
            f"its input {spec.name!r} has the shape {spec.shape}, without a batch of any size in "
            "front"
        )
    if not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
        raise ValueError(f"its input {spec.name!r} is of type {spec.dtype.name}")
    return tuple(spec.shape[1:])
