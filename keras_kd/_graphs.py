"""Graphs of models of either Keras: symbolic inputs and outputs, and the calls between them."""

from __future__ import annotations

import re
from typing import Any

import keras

from keras_kd._backends import is_tensorflow, mask_of
from keras_kd._keras import is_keras_model, is_model


def input_shapes(model: Any) -> list[tuple] | None:
    """The shapes of a model's inputs, batch first; `None` where the model does not define them."""
    inputs = getattr(model, "inputs", None)
    return None if inputs is None else [tuple(tensor.shape) for tensor in inputs]


def input_names(model: Any) -> Any:
    """The names of a model's inputs in their structure; `None` where there are none.

    One name for a model of one tensor, a list of names, or a dict whose keys are the names.
    """
    if getattr(model, "inputs", None) is None:
        return None
    inputs = symbolic_inputs(model)
    if isinstance(inputs, dict):
        return {name: name for name in inputs}
    if isinstance(inputs, list | tuple):
        return [getattr(tensor, "name", None) for tensor in inputs]
    return inputs.name


def output_specs(model: Any) -> Any:
    """A model's outputs as tensors without values; `None` where the model does not define them.

    A subclassed model that has been called knows its input shape, from which Keras 3 derives
    the outputs without computing them.
    """
    if getattr(model, "inputs", None) is not None:
        return symbolic_outputs(model)
    if not is_keras_model(model) or not model.built:
        return None
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, list | tuple) or not all(
        size is None or isinstance(size, int) for size in shape
    ):
        return None
    try:
        # The size of the batch that the model was built with does not restrict others.
        return model.compute_output_spec(keras.KerasTensor((None, *shape[1:])))
    except Exception:
        # Any Python may be in a subclassed model's call; what cannot be foreseen is seen later.
        return None


def ends_in_logits(model: Any) -> bool:
    """Whether a model visibly ends in a layer without activation; `False` where it is hidden."""
    if getattr(model, "inputs", None) is None or len(model.outputs) != 1:
        return False
    return last_activation(model.outputs[0]) == "linear"


# Layers and operations behind which an output is what it was before, in another shape.
_KEEP_VALUES = frozenset(
    {
        "ActivityRegularization",
        "Cast",
        "Dropout",
        "ExpandDims",
        "Flatten",
        "GetItem",
        "Identity",
        "Permute",
        "Reshape",
        "Squeeze",
        "Transpose",
    }
)


def last_activation(output: Any) -> str | None:
    """The name of the activation that a symbolic tensor of either Keras comes out of.

    Returns:
        `"linear"` for a layer with weights and no activation; `None` where it is not seen.
    """
    layer = _maker(output)
    if is_model(layer):
        inner = layer.outputs
        return last_activation(inner[0]) if inner is not None and len(inner) == 1 else None
    while hasattr(layer, "layer"):
        # A wrapper, such as TimeDistributed or one that prunes.
        layer = layer.layer
    kind = type(layer).__name__
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", None)
    if kind in ("Softmax", "Sigmoid"):
        return kind.lower()
    if kind in _KEEP_VALUES or (kind == "Activation" and name == "linear"):
        sources = sources_of(output)
        return last_activation(sources[0]) if len(sources) == 1 else None
    return name


def _maker(output: Any) -> Any:
    """The layer or operation that a symbolic tensor comes out of, in either Keras."""
    history = getattr(output, "_keras_history", None)
    return getattr(history, "operation", None) or getattr(history, "layer", None)


def symbolic_inputs(model: Any) -> Any:
    """The inputs of a Functional or Sequential model in their own structure."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def symbolic_outputs(model: Any) -> Any:
    """The outputs of a Functional or Sequential model in their own structure."""
    # A Sequential model of Keras 3 has a list of one output, and no `output` until it is called.
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def is_symbolic(tensor: Any) -> bool:
    """Whether a tensor of either Keras stands in a model's graph, without values."""
    return isinstance(tensor, keras.KerasTensor) or type(tensor).__name__ == "KerasTensor"


def loops_over_time(layer: Any) -> bool:
    """Whether a recurrent layer of either Keras always remains a loop in a file.

    A GRU or SimpleRNN does, and an LSTM that reads a mask; any other LSTM of tf_keras is one
    operator. TensorFlow's converter cannot calibrate such loops. A layer with `stateful=True` takes
    its states as inputs: a single step of it is no loop, several are, also of an LSTM.
    """
    inner = getattr(layer, "forward_layer", layer)
    name = type(inner).__name__
    if name not in ("GRU", "LSTM", "SimpleRNN") or inner.unroll:
        return False
    tensors = _inputs_of(layer)
    if inner.stateful:
        # An open length becomes one step.
        return bool(tensors) and tensors[0].shape[1] not in (1, None)
    return name != "LSTM" or any(mask_of(tensor) is not None for tensor in tensors)


def _inputs_of(layer: Any) -> list[Any]:
    """The symbolic tensors that a layer reads, none where they are not known."""
    try:
        return keras.tree.flatten(layer.input)
    except (AttributeError, RuntimeError, ValueError):
        # It has been called several times, or never on a symbolic tensor.
        return []


# Operations and layers of either Keras that compute each value from those at its own position.
_POSITIONWISE = re.compile(
    r"abs|absolute|add|cast|clip|cos|divide|dividenonan|elu|exp|floordivide|gelu|hardsigmoid"
    r"|hardsilu|hardtanh|layernorm|leakyrelu|log|log1p|logsigmoid|logsoftmax|maximum|minimum|mod"
    r"|multiply|negative|normalize|power|reciprocal|relu|relu6|rmsnorm|selu|sigmoid|sign|silu|sin"
    r"|softmax|softplus|softsign|sqrt|square|stopgradient|subtract|tanh|truediv|truedivide|where"
)


def keeps_positions(operation: Any) -> bool:
    """Whether an operation or a merging layer computes each position from the same position.

    Args:
        operation: an operation or layer of Keras 3, or a layer of tf_keras, also one that holds an
            operation of Keras 3 or TensorFlow.
    """
    symbol = getattr(operation, "symbol", None)
    if isinstance(symbol, str):
        name = symbol.rpartition(".")[2]
    else:
        inner = getattr(operation, "operation", None)
        name = getattr(inner, "kind", type(operation)).__name__
    return _POSITIONWISE.fullmatch(name.replace("_", "").lower()) is not None


def operations_in(model: Any) -> list[Any]:
    """All layers inside a model, and the operations between them, however deep."""
    found = {id(layer): layer for layer in model._flatten_layers(include_self=False)}
    for layer in [model, *found.values()]:
        if is_keras_model(layer):
            # Operations such as `x + y` are no layers.
            found |= {id(one): one for one in getattr(layer, "operations", ())}
    return list(found.values())


def sources_of(tensor: Any) -> list[Any]:
    """The symbolic tensors from which a layer of either Keras made a symbolic tensor."""
    layer, node_index, _ = tensor._keras_history
    node = layer._inbound_nodes[node_index]
    if node.is_input:
        return []
    return keras.tree.flatten(getattr(node, "keras_inputs", None) or node.input_tensors)


def is_loop(layer: Any) -> bool:
    """Whether a layer calls those inside it once for each step of a sequence."""
    return not {"TimeDistributed", "RNN"}.isdisjoint(base.__name__ for base in type(layer).__mro__)


def output_in_graph(model: Any, layer: Any) -> Any:
    """The symbolic output of a layer of the model's own graph, if it is called once; or `None`."""
    nodes = getattr(layer, "_inbound_nodes", ())
    in_graph = any(layer is one for one in model.layers)
    return layer.output if in_graph and len(nodes) == 1 else None


def trace(function: Any, inputs: Any) -> Any:
    """Call a function on placeholders; nothing is computed.

    Args:
        function: takes tensors.
        inputs: symbolic tensors of either Keras, in the structure that the function takes.

    Returns:
        What the function returned: its tensors belong to a graph that has no other use.
    """
    if not is_tensorflow():
        # What the symbolic calls of Keras go through, for functions that call several layers.
        from keras.src.backend import compute_output_spec

        return compute_output_spec(function, inputs)
    import tensorflow as tf

    def spec(tensor: Any) -> Any:
        given = getattr(tensor, "type_spec", None)
        if given is not None:
            return given
        kind = tf.SparseTensorSpec if tensor.sparse else tf.TensorSpec
        return kind(tensor.shape, tensor.dtype)

    results = []

    def call(inputs: Any) -> None:
        results.append(function(inputs))

    specs = keras.tree.map_structure(spec, inputs)
    tf.function(call, autograph=False).get_concrete_function(specs)
    return results[-1]


def is_out_of_reach(tensor: Any) -> bool:
    """Whether a tensor belongs to another graph than what is computed now, such as a loop."""
    if not is_tensorflow():
        # Layers in loops are found by their names.
        return False
    import tensorflow as tf

    if not isinstance(tensor, tf.Tensor) or hasattr(tensor, "numpy"):
        return False
    return tf.executing_eagerly() or tensor.graph is not tf.compat.v1.get_default_graph()


def graph_steps(model: Any) -> list[tuple[Any, list[Any], list[Any]]]:
    """The operations of a functional or sequential Keras 3 model, in the order of computation.

    Each with the symbolic tensors that it reads and those that it returns; nothing where Keras
    keeps no graph.
    """
    graph = getattr(model, "_functional", None) or model
    by_depth = getattr(graph, "_nodes_by_depth", {})
    return [
        (node.operation, node.input_tensors, node.outputs)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
    ]
