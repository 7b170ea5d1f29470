"""A model as a list of layer calls: read from either Keras, replayed in either Keras.

Replaying calls, instead of translating a model's serialized config, is what makes shared layers,
several inputs and outputs, nested models and masks come out right.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras

from keras_kd._backends import mask_of
from keras_kd._checks import one_line, problem, three_parts
from keras_kd._keras import is_keras_model, is_tf_keras_model
from keras_kd.compression.bridge.operations import Operation
from keras_kd.compression.layers import row_of


class LayerError(ValueError):
    """A layer of a graph, `layer`, cannot be replaced by what was made for it."""

    def __init__(self, message: str, layer: Any) -> None:
        super().__init__(message)
        self.layer = layer


@dataclass(frozen=True)
class Slot:
    """Stands for one tensor of a graph."""

    index: int


@dataclass(frozen=True)
class InputSpec:
    """What is known of one input: `shape` includes the batch dimension, unknown sizes are None."""

    slot: Slot
    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Call:
    """One call of a layer: slots stand where the tensors were.

    Operations of Keras 3 are layers here, see `Operation`. `masked`: whether Keras 3 has a mask
    for one of the tensors.
    """

    layer: Any
    path: str
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    results: tuple[Slot, ...]
    masked: bool

    def operands(self) -> list[Slot]:
        """The slots among the arguments."""
        return _slots(self.arguments)


@dataclass(frozen=True)
class Graph:
    """The calls of a model in an order in which they can run; nested models are flattened."""

    name: str
    input_specs: tuple[InputSpec, ...]
    inputs: Any
    calls: tuple[Call, ...]
    outputs: Any

    def layers(self) -> list[Any]:
        """Every layer once, in the order of their first calls."""
        return list({id(call.layer): call.layer for call in self.calls}.values())

    def names(self) -> dict[int, str]:
        """A unique name for each layer, by `id(layer)`.

        It is the layer's own name; where flattening brings two layers of one name together, each
        gets the names of the models around it in front, and a number where that is not enough.
        """
        paths: dict[int, str] = {}
        for call in self.calls:
            paths.setdefault(id(call.layer), call.path)
        own = {key: path.rsplit("/", 1)[-1] for key, path in paths.items()}
        count = Counter([*own.values(), *(spec.name for spec in self.input_specs)])
        names: dict[int, str] = {}
        taken = {name for name in count if count[name] == 1}
        taken.update(spec.name for spec in self.input_specs)
        for key, name in own.items():
            names[key] = name if count[name] == 1 else _free(paths[key].replace("/", "_"), taken)
        return names


def read(model: Any) -> Graph:
    """Read a Sequential or Functional model of either Keras.

    Raises:
        ValueError: if the model is subclassed or not built.
    """
    functional = _functional(model)
    specs = []
    reader = _Reader(functional)
    for tensor in keras.tree.flatten(functional.inputs):
        slot = reader.new_slot()
        reader.slots[id(tensor)] = slot
        dtype = getattr(tensor.dtype, "name", tensor.dtype)
        name = tensor._keras_history[0].name
        specs.append(InputSpec(slot, name, tuple(tensor.shape), dtype))
    reader.read(functional, prefix="")
    inputs, outputs = (
        keras.tree.map_structure(lambda tensor: reader.slots[id(tensor)], structure)
        for structure in _structures(functional)
    )
    return Graph(
        name=model.name,
        input_specs=tuple(specs),
        inputs=inputs,
        calls=_reachable(reader.calls, _slots(outputs)),
        outputs=outputs,
    )


def build(graph: Graph, kit: ModuleType, layers: Mapping[int, Sequence[Any]]) -> Any:
    """Replay `graph` in `kit` (the module `keras` or `tf_keras`) as a functional model.

    `layers` holds, by `id` of a layer of the graph, the layers of `kit` that replace it, called
    one after the other; an empty sequence passes its input on.
    """
    values = {
        spec.slot: kit.Input(
            shape=spec.shape[1:], batch_size=spec.shape[0], dtype=spec.dtype, name=spec.name
        )
        for spec in graph.input_specs
    }
    for _ in steps(graph, layers, values):
        pass
    inputs, outputs = (_filled(structure, values) for structure in (graph.inputs, graph.outputs))
    model = kit.Model(inputs, outputs, name=graph.name)
    if kit is keras:
        return model
    from keras_kd._translation import take_keras_3

    return take_keras_3(model)


def steps(
    graph: Graph, layers: Mapping[int, Sequence[Any]], values: dict[Slot, Any]
) -> Iterator[Call]:
    """Run the calls on `values`, symbolic or not, and yield each call after it has run.

    Raises:
        LayerError: if a layer cannot be called; the message names it.
    """
    for call in graph.calls:
        args, kwargs = _filled(call.arguments, values)
        results = args[0] if args else None
        try:
            for layer in layers[id(call.layer)]:
                kwargs = _with_mask(layer, args, kwargs, call.masked)
                results = layer(*args, **kwargs)
                args, kwargs = (results,), {}
        except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
            raise LayerError(
                three_parts(
                    f"layer {call.path!r} ({type(call.layer).__name__}), which cannot be called in"
                    f" the other Keras: {one_line(error)}",
                    "a layer that works in both",
                    "replace the layer, or leave it out of the student",
                ),
                call.layer,
            ) from error
        values.update(zip(call.results, keras.tree.flatten(results), strict=True))
        yield call


class _Reader:
    """Collects the calls of a model and of the models nested in it."""

    def __init__(self, functional: Any) -> None:
        self.slots: dict[int, Slot] = {}
        self.calls: list[Call] = []
        self._operations: dict[int, Operation] = {}
        self._kind = _KerasNodes if isinstance(functional, keras.Model) else _TfKerasNodes
        self._count = 0

    def new_slot(self) -> Slot:
        self._count += 1
        return Slot(self._count - 1)

    def read(self, functional: Any, prefix: str) -> None:
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if not all(id(tensor) in self.slots for tensor in self._kind.results(node)):
                    self._read_node(node, prefix)

    def _read_node(self, node: Any, prefix: str) -> None:
        layer = self._kind.layer(node)
        recorded, masked = self._kind.arguments(node)
        arguments: Any = keras.tree.map_structure(
            lambda leaf: self.slots.get(id(leaf), leaf), recorded
        )
        results = self._kind.results(node)
        path = prefix + layer.name
        if isinstance(layer, keras.Operation) and not isinstance(layer, keras.layers.Layer):
            # A nested model's own operations are the same at each of its calls.
            layer = self._operations.setdefault(id(node), Operation.of(node))
            operands = _slots(arguments)
            inputs: Any = operands if len(operands) > 1 else operands[0]
            arguments, masked = ((inputs,), {}), False
        if _has_graph(layer):
            slots = self._inline(layer, _slots(arguments), path)
        else:
            slots = [self.new_slot() for _ in results]
            self.calls.append(Call(layer, path, arguments, tuple(slots), masked))
        self.slots.update((id(tensor), slot) for tensor, slot in zip(results, slots, strict=True))

    def _inline(self, model: Any, operands: list[Slot], path: str) -> list[Slot]:
        # A nested model's own tensors are the same objects at each of its calls.
        functional = _functional(model, path)
        outer, self.slots = self.slots, {}
        tensors = keras.tree.flatten(functional.inputs)
        self.slots.update((id(t), slot) for t, slot in zip(tensors, operands, strict=True))
        self.read(functional, prefix=path + "/")
        results = [self.slots[id(t)] for t in keras.tree.flatten(functional.outputs)]
        self.slots = outer
        return results


class _KerasNodes:
    """How Keras 3 records a call."""

    @staticmethod
    def layer(node: Any) -> Any:
        return node.operation

    @staticmethod
    def results(node: Any) -> list[Any]:
        return node.outputs

    @staticmethod
    def arguments(node: Any) -> tuple[Any, bool]:
        """The arguments without what Keras 3 adds and overrides at run time, and if it masks."""
        args, kwargs = node.arguments.args, node.arguments.kwargs
        automatic = {id(mask_of(leaf)) for leaf in keras.tree.flatten([args, kwargs])} | {id(None)}

        def is_automatic(name: str, value: Any) -> bool:
            is_mask = name == "mask" or name.endswith("_mask")
            return is_mask and all(id(leaf) in automatic for leaf in keras.tree.flatten(value))

        kept = {
            name: value
            for name, value in kwargs.items()
            if name != "training" and not is_automatic(name, value)
        }
        return (tuple(args), kept), automatic != {id(None)} or "mask" in kept


class _TfKerasNodes:
    """How tf_keras records a call: only what the user passed."""

    @staticmethod
    def layer(node: Any) -> Any:
        return node.layer

    @staticmethod
    def results(node: Any) -> list[Any]:
        return keras.tree.flatten(node.outputs)

    @staticmethod
    def arguments(node: Any) -> tuple[Any, bool]:
        args, kwargs = tuple(node.call_args), dict(node.call_kwargs)
        row = row_of(type(node.layer))
        if row is not None and row.is_recurrent and isinstance(args[0], (list, tuple)):
            # The initial state comes after the sequence, however it was passed.
            sequence, *kwargs["initial_state"] = args[0]
            args = (sequence, *args[1:])
        return (args, kwargs), True


def _functional(model: Any, path: str | None = None) -> Any:
    """The graph inside `model`, for the two kinds of models that have one."""
    name = path or model.name
    if isinstance(model, keras.Sequential):
        model = model._functional
    if _has_graph(model):
        return model
    if model is None or type(model).__name__ == "Sequential":
        raise problem(
            f"the Sequential model {name!r}, which is not built",
            "a model whose input shape is known",
            "begin it with keras.Input(shape) or call it once on data",
        )
    raise problem(
        f"the subclassed model {name!r} ({type(model).__name__}), whose graph only its own code "
        "defines",
        "a Sequential or Functional model",
        "rebuild it as one: inputs = keras.Input(shape); student = keras.Model(inputs,"
        " model.call(inputs)) works where `call` only calls layers",
    )


def _has_graph(layer: Any) -> bool:
    """Whether a layer is a model that consists of calls of layers."""
    if not (is_keras_model(layer) or is_tf_keras_model(layer)):
        return False
    if isinstance(layer, keras.Sequential):
        return True
    return bool(getattr(layer, "_nodes_by_depth", None)) and bool(getattr(layer, "inputs", None))


def _structures(functional: Any) -> tuple[Any, Any]:
    """Inputs and outputs as the user gave them: a tensor, a list or a dict."""
    if isinstance(functional, keras.Model):
        return functional._inputs_struct, functional._outputs_struct
    return functional._nested_inputs, functional._nested_outputs


def _with_mask(layer: Any, args: Any, kwargs: dict[str, Any], masked: bool) -> dict[str, Any]:
    """The keyword arguments with `mask=None` where the layer would take a mask that is not meant.

    In Keras 3 some layers lose masks that in tf_keras they pass on.
    """
    takes_mask = "mask" in inspect.signature(layer.call).parameters
    has_mask = any(mask_of(leaf) is not None for leaf in keras.tree.flatten(args))
    if takes_mask and has_mask and not masked:
        return {**kwargs, "mask": None}
    if not takes_mask and "mask" in kwargs and kwargs["mask"] is None:
        return {name: value for name, value in kwargs.items() if name != "mask"}
    return kwargs


def _free(name: str, taken: set[str]) -> str:
    """`name`, or the first of `name_1`, `name_2`... that is not taken; it is taken from then on."""
    number = 0
    free = name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _slots(structure: Any) -> list[Slot]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, Slot)]


def _filled(structure: Any, values: Mapping[Slot, Any]) -> Any:
    return keras.tree.map_structure(
        lambda leaf: values[leaf] if isinstance(leaf, Slot) else leaf, structure
    )


def _reachable(calls: Sequence[Call], outputs: Sequence[Slot]) -> tuple[Call, ...]:
    """The calls that the outputs need: Keras 3 also records how masks are computed."""
    needed = set(outputs)
    kept = []
    for call in reversed(calls):
        if needed.intersection(call.results):
            kept.append(call)
            needed.update(call.operands())
    return tuple(reversed(kept))
