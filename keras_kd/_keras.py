"""The two Kerases, and what is private to them.

Users bring models of Keras 3 (`keras`), TensorFlow Model Optimization works on models of Keras 2
(`tf_keras`). What several rooms need to know of which one a model is, or of something that Keras
does not promise to keep, is here; how each records a model's graph is in `compression/graph.py`.
"""

from __future__ import annotations

import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_kd._checks import one_line, problem


def tf_keras() -> ModuleType:
    """Keras 2, imported when first asked for: it takes seconds."""
    import tf_keras

    return tf_keras


def is_keras_model(model: Any) -> bool:
    """Whether `model` is a Keras 3 model."""
    return isinstance(model, keras.Model)


def is_tf_keras_model(model: Any) -> bool:
    """Whether `model` is a Keras 2 model. Imports nothing: without tf_keras there is none."""
    module = sys.modules.get("tf_keras")
    return module is not None and isinstance(model, module.Model)


def is_model(model: Any) -> bool:
    """Whether `model` is a model of either Keras."""
    return is_keras_model(model) or is_tf_keras_model(model)


def check_model(name: str, model: Any) -> Any:
    """Return `model` if it is a model of either Keras.

    Raises:
        ValueError: if it is anything else.
    """
    if not is_model(model):
        raise problem(
            f"{name}={short(model)} of type {type(model).__module__}.{type(model).__qualname__}",
            "a keras.Model or a tf_keras.Model",
            f"load or build the model first and pass it as `{name}`",
        )
    return model


def short(value: Any) -> str:
    """The beginning of what a value looks like, on one line; an array can have a thousand."""
    text = one_line(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_backend() -> None:
    """Refuse to work on a backend that this package was not tested on.

    Raises:
        ValueError: if Keras runs on anything but TensorFlow.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise problem(
            f"the Keras backend {backend!r}",
            "the TensorFlow backend",
            "set the environment variable KERAS_BACKEND=tensorflow before importing keras",
        )


def number_of_replicas() -> int:
    """How many replicas sum their gradients: 1 without `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


class Untracked:
    """Holds an object that Keras must not find when it looks through a model's attributes.

    Both Kerases make every model, list and dict that is set on a model a part of it: of its
    weights, its summary and its files.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


def at_least_float32(tensor: Any) -> Any:
    """Half precision cannot hold a sum over many values: compute in float32 or better."""
    tensor = ops.convert_to_tensor(tensor)
    wide = keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
    return tensor if wide else ops.cast(tensor, "float32")


def new_variable(
    shape: tuple[int, ...], value: float | keras.initializers.Initializer, name: str
) -> keras.Variable:
    """A trainable variable, also where a step is being compiled.

    Args:
        shape: its shape.
        value: one number that fills it, or an initializer.
        name: its name.
    """
    is_initializer = isinstance(value, keras.initializers.Initializer)
    initializer = value if is_initializer else keras.initializers.Constant(value)
    if keras.backend.backend() != "tensorflow":
        return keras.Variable(initializer, shape=shape, dtype="float32", name=name)
    import tensorflow as tf

    with tf.init_scope():
        return keras.Variable(initializer, shape=shape, dtype="float32", name=name)


def call_numpy(function: Any, inputs: list[Any], specs: list[Any]) -> list[Any]:
    """Call a function of arrays from a step that TensorFlow compiles.

    Args:
        function: takes one array per input and returns one per spec.
        inputs: tensors.
        specs: tensors without values, with the shapes and dtypes of what the function returns.
    """
    import tensorflow as tf

    outputs = tf.numpy_function(function, inputs, [spec.dtype for spec in specs])
    # A list of one comes back as a tensor where nothing is compiled.
    outputs = keras.tree.flatten(outputs)
    for output, spec in zip(outputs, specs, strict=True):
        # TensorFlow knows nothing about what comes out of Python.
        output.set_shape(spec.shape)
    return outputs


@contextmanager
def numpy_errors_in_one_line() -> Iterator[None]:
    """Raise the `problem` that a function of `call_numpy` raised as it was said.

    TensorFlow wraps it into an error of its own, twenty lines of traceback as a text.

    Raises:
        ValueError: in the place of TensorFlow's error.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        own = re.search(r"(?:Type|Value)Error: (Received .* To fix it: .*)\nTraceback", str(error))
        if own is None:
            raise
        raise ValueError(own[1]) from None


def input_shapes(model: Any) -> list[tuple] | None:
    """The shapes of a model's inputs, batch first; `None` where the model does not say."""
    inputs = getattr(model, "inputs", None)
    return None if inputs is None else [tuple(tensor.shape) for tensor in inputs]


def input_names(model: Any) -> Any:
    """The names of a model's inputs in their structure; `None` where the model does not say.

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
    """A model's outputs as tensors without values; `None` where the model does not say.

    A subclassed model that has been called knows its input shape, from which Keras 3 can tell
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
        # The size of the batch that the model was built with says nothing of others.
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
        sources = _sources(output)
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


def mask_of(tensor: Any) -> Any:
    """The mask that a Masking or Embedding layer upstream gave a tensor, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def loops_over_time(layer: Any) -> bool:
    """Whether a recurrent layer of either Keras remains a loop in a file, whatever is done.

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


# Operations, and layers of both Kerases, that compute each value from those at its own position.
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


@contextmanager
def replaced_attributes(replacements: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """While this is open, objects have other attributes.

    Args:
        replacements: object, name of an attribute, and a function that makes the other value of
            the one it has.
    """
    originals = []
    try:
        for owner, name, replace in replacements:
            originals.append((owner, name, vars(owner).get(name)))
            # Past Keras' own __setattr__, for which this would be a part of the layer.
            object.__setattr__(owner, name, replace(getattr(owner, name)))
        yield
    finally:
        for owner, name, original in reversed(originals):
            if original is not None:
                object.__setattr__(owner, name, original)
            elif name in vars(owner):
                object.__delattr__(owner, name)


def without_autograph(function: Any) -> Any:
    """A function that AutoGraph, which tf_keras applies to layers, does not rewrite."""
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


def attention_in(layer: Any) -> Any:
    """The attention layer that `layer` is or wraps, or `None`.

    It computes its scores in a method `_compute_attention(query, key, ...)`, as the layers of both
    Kerases and those of KerasHub do.
    """
    layer = unwrapped(layer)
    compute = getattr(layer, "_compute_attention", None)
    if not callable(compute):
        return None
    names = list(inspect.signature(compute).parameters)
    return layer if names[:2] == ["query", "key"] else None


class Attention(NamedTuple):
    """What an attention layer computes before it looks at the values.

    Attributes:
        scores: the products of queries and keys, divided by the root of the size of a head, of
            shape `(batch, heads, queries, keys)`.
        mask: `None` or the layer's own mask, true where a query attends to a key, in a shape that
            is broadcast to that of the scores.
    """

    scores: Any
    mask: Any

    @property
    def probabilities(self) -> Any:
        """The scores' softmax over the keys."""
        scores = self.scores
        if self.mask is not None:
            # Finite, for a query that attends to nothing.
            scores = ops.where(self.mask, scores, -1e9)
        return ops.softmax(scores, axis=-1)


def attention_of_call(layer: Any, args: Any, kwargs: Any) -> Attention:
    """The attention from the arguments of a call of a layer's `_compute_attention`.

    The layer itself may compute no scores: in 3.15 Keras calls `ops.dot_product_attention`, unless
    there is dropout or somebody asks for the scores.

    Raises:
        ValueError: if it attends along several axes.
    """
    given = inspect.signature(layer._compute_attention).bind(*args, **kwargs).arguments
    query, key = (at_least_float32(given[name]) for name in ("query", "key"))
    if len(query.shape) != 4 or len(key.shape) != 4:
        raise problem(
            f"the attention layer {layer.name!r} with queries of shape {tuple(query.shape)}",
            "queries of shape (batch, positions, heads, size)",
            "name a layer that attends along one axis of positions",
        )
    if key.shape[2] != query.shape[2]:
        key = ops.repeat(key, query.shape[2] // key.shape[2], axis=2)
    scores = ops.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    mask = given.get("attention_mask")
    if mask is not None:
        mask = ops.cast(mask, "bool")
        mask = ops.expand_dims(mask, axis=1) if len(mask.shape) == 3 else mask
    if given.get("use_causal_mask"):
        row, column = (ops.arange(ops.shape(scores)[axis]) for axis in (2, 3))
        causal = (row[:, None] >= column[None, :])[None, None]
        mask = causal if mask is None else ops.logical_and(mask, causal)
    return Attention(scores, mask)


def mark_attention_scores(tensor: Any) -> None:
    """Note that a tensor is what an attention layer returned as its scores."""
    tensor._keras_kd_is_attention = True


def is_attention_scores(tensor: Any) -> bool:
    """Whether a tensor is marked so, or a symbolic one comes from an attention layer as such."""
    while not getattr(tensor, "_keras_kd_is_attention", False):
        layer, _, index = getattr(tensor, "_keras_history", (None, None, None))
        if layer is None:
            return False
        if attention_in(layer) is not None:
            return index == 1
        sources = _sources(tensor)
        # What only names, drops out or scales them gives them on.
        if len(sources) != 1 or tuple(sources[0].shape) != tuple(tensor.shape):
            return False
        tensor = sources[0]
    return True


def _sources(tensor: Any) -> list[Any]:
    """The symbolic tensors from which a layer of either Keras made a symbolic tensor."""
    layer, node_index, _ = tensor._keras_history
    node = layer._inbound_nodes[node_index]
    if node.is_input:
        return []
    return keras.tree.flatten(getattr(node, "keras_inputs", None) or node.input_tensors)


def unwrapped(layer: Any) -> Any:
    """What TF-MOT has wrapped, or the bridge to tf_keras keeps of Keras 3; other layers as is."""
    while True:
        is_wrapper = original_name(layer.name) != layer.name
        inner = getattr(layer, "layer" if is_wrapper else "keras_layer", None)
        if inner is None:
            return layer
        layer = inner


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
    import tensorflow as tf

    if not isinstance(tensor, tf.Tensor) or hasattr(tensor, "numpy"):
        return False
    return tf.executing_eagerly() or tensor.graph is not tf.compat.v1.get_default_graph()


def take_losses(layer: keras.layers.Layer) -> list[Any]:
    """What a layer and those in it have added with `add_loss` since the last time."""
    losses = [loss for part in layer._flatten_layers() for loss in part._get_own_losses()]
    layer._clear_losses()
    return losses


def metrics_of_compile(model: Any) -> list[Any]:
    """The metrics that a model has by its `compile`, that of its loss included."""
    if is_keras_model(model):
        loss = model._compile_loss
        return [
            model._loss_tracker,
            model._compile_metrics,
            *([] if loss is None else loss.metrics),
        ]
    containers = (model.compiled_loss, model.compiled_metrics)
    return [metric for each in containers if each is not None for metric in each.metrics]


@contextmanager
def replacing(model: Any, part: Any) -> Iterator[None]:
    """While this is open, take other layers and models into a model, in the place of a part.

    Keras 3 forgets a variable that an attribute no longer holds, but no layer, and takes no layers
    into a model that is built. tf_keras does both by itself.
    """
    if not is_keras_model(model):
        yield
        return
    tracker = model._tracker
    locked = tracker.locked
    tracker.unlock()
    for old in keras.tree.flatten(part):
        tracker.untrack(old)
    try:
        yield
    finally:
        if locked:
            tracker.lock()


def saves_to_hdf5() -> bool:
    """Whether Keras 3 asks for a configuration to write it to an `.h5` file, or reads one.

    Such files hold the weights of layers only, and configurations in an older form, which does not
    name modules.
    """
    model = keras.Sequential([keras.layers.Identity(name="layer")], name="model")
    return "module" not in model.get_config()["layers"][0]


def computes_in_float16(model: Any) -> bool:
    """Whether any layer of a model computes in float16, so that gradients can underflow."""
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


_WRAPPER_PREFIXES = ("prune_low_magnitude_", "quant_", "cluster_")


def original_name(name: str) -> str:
    """The name that a layer had before TF-MOT wrapped it."""
    for prefix in _WRAPPER_PREFIXES:
        if name.startswith(prefix):
            return original_name(name.removeprefix(prefix))
    return name


_CHECKS: dict[int, tuple[Callable[..., None], Callable[..., None]]] = {}
_CHECKS_LOCK = threading.Lock()
_new_symbolic_tensor = keras.KerasTensor.__init__
_new_variable = keras.Variable.__init__


@contextmanager
def checking_what_is_built(
    check_tensor: Callable[[keras.KerasTensor], None],
    check_variable: Callable[[tuple[int | None, ...], str], None],
) -> Iterator[None]:
    """Call a function on each symbolic tensor and variable that this thread makes.

    Args:
        check_tensor: given the tensor before anything is done with it: layers compute constants of
            the size of their inputs when they are built.
        check_variable: given the shape and the dtype of a variable before it is filled.
    """
    thread = threading.get_ident()
    with _CHECKS_LOCK:
        before = _CHECKS.get(thread)
        _CHECKS[thread] = check_tensor, check_variable
        keras.KerasTensor.__init__ = _checked_symbolic_tensor
        keras.Variable.__init__ = _checked_variable
    try:
        yield
    finally:
        with _CHECKS_LOCK:
            del _CHECKS[thread]
            if before is not None:
                _CHECKS[thread] = before
            if not _CHECKS:
                keras.KerasTensor.__init__ = _new_symbolic_tensor
                keras.Variable.__init__ = _new_variable


def _checked_symbolic_tensor(self: keras.KerasTensor, *arguments: Any, **options: Any) -> None:
    _new_symbolic_tensor(self, *arguments, **options)
    checks = _CHECKS.get(threading.get_ident())
    if checks is not None:
        checks[0](self)


def _checked_variable(
    self: keras.Variable,
    initializer: Any,
    shape: Any = None,
    dtype: Any = None,
    *arguments: Any,
    **options: Any,
) -> None:
    checks = _CHECKS.get(threading.get_ident())
    if checks is not None:
        size = getattr(initializer, "shape", ()) if shape is None else shape
        checks[1](tuple(size), keras.backend.standardize_dtype(dtype))
    _new_variable(self, initializer, shape, dtype, *arguments, **options)


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
