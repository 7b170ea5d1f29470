"""SavedModels: programs of TensorFlow, read before they are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import keras

from keras_kd._memory import check_expansion, check_results, size_of
from keras_kd._model_files.operations import CHECKPOINT, HARMLESS

_FILE = "saved_model.pb"
# What TensorFlow's own tools name the function that devices and servers call.
_USUAL_SIGNATURES = ("serving_default", "serve")
_INTERNAL_SIGNATURE = "__saved_model_"
_MOST_BYTES = 2**31


def is_saved_model(path: Path) -> bool:
    """Whether a directory is a SavedModel."""
    return (path / _FILE).is_file()


def load(path: Path, custom_objects: dict[str, Any]) -> keras.Model:
    """A Keras model that calls the function that the SavedModel serves.

    Its inputs and outputs have the names of the function's. Custom objects play no part.

    Raises:
        ValueError: if the program could do anything but compute, or if it has no function with a
            batch in front of every input.
        Exception: any, for damaged files.
    """
    _check_program(path)
    name = _signature_name(path)
    layer = _saved_function()(str(path), call_endpoint=name, trainable=False)
    check_results("operations", layer.call_endpoint_fn.graph, _described)
    _, specs = layer.call_endpoint_fn.structured_input_signature
    inputs = {
        name: keras.Input(_shape_of_example(spec), name=name, dtype=spec.dtype.name)
        for name, spec in specs.items()
    }
    outputs = layer(inputs)
    if len(outputs) == 1:
        (name,) = outputs
        name = "output" if re.fullmatch(r"output_\d+", name) else name
        outputs = keras.layers.Identity(name=name)(*outputs.values())
    if len(inputs) == 1:
        (inputs,) = inputs.values()
    return keras.Model(inputs, outputs, name=re.sub(r"\W", "_", path.resolve().name) or None)


def _saved_function() -> type:
    """The class of the layer; made when needed, because Keras has its base class only then."""

    class SavedFunction(keras.layers.TFSMLayer):
        """Passes each input by its name, however many there are."""

        def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
            return self.call_endpoint_fn(**inputs)

    return SavedFunction


def _check_program(path: Path) -> None:
    """Refuse programs that could read or write files, run Python, or do what nobody has checked.

    TensorFlow's own functions for saving and restoring a SavedModel do read and write files. They
    are let in if nothing in the program can call them: loading does not, and neither does running
    the model.
    """
    graph = _meta_graph(path)
    savers = _saver_functions(graph)
    for function in graph.graph_def.library.function:
        allowed = HARMLESS
        if function.signature.name in savers:
            allowed = HARMLESS | CHECKPOINT
            if any("implements" in attribute for attribute in function.attr):
                raise ValueError("it has a function for saving that can stand for others")
        _check_operations(function.node_def, allowed)
    _check_operations(graph.graph_def.node, HARMLESS)
    _check_variables(graph, path)


def _meta_graph(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / _FILE
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"its {_FILE} has over {_MOST_BYTES} bytes")
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
    nodes = graph.graph_def.node
    of_savers = set(_called(node for node in nodes if node.name in saver))
    of_others = set(_called(node for node in nodes if node.name not in saver))
    for function in graph.graph_def.library.function:
        of_others |= set(_called(function.node_def))
    of_others |= set(graph.object_graph_def.concrete_functions)
    return of_savers - of_others


def _called(nodes: Iterable[Any]) -> Iterable[str]:
    for node in nodes:
        for value in node.attr.values():
            yield from (
                function.name for function in [value.func, *value.list.func] if function.name
            )


def _check_operations(nodes: Iterable[Any], allowed: frozenset[str]) -> None:
    refused = sorted({node.op for node in nodes} - allowed)
    if refused:
        raise ValueError(
            f"it has the operations {', '.join(refused[:5])}, which may do more than compute"
        )


def _check_variables(graph: Any, path: Path) -> None:
    """Refuse variables and constants that are far larger than the files that they are stored in."""
    stored = sum(file.stat().st_size for file in (path / _FILE, *path.glob("variables/*")))
    declared = 0
    for node in graph.object_graph_def.nodes:
        if node.HasField("variable"):
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


def _signature_name(path: Path) -> str:
    signatures = [
        name for name in _meta_graph(path).signature_def if not name.startswith(_INTERNAL_SIGNATURE)
    ]
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
