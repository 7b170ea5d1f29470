"""State that a file keeps between calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_kd.tflite.tensors import TensorInfo

# What follows the name of an input that is a state in the name of the output that it is fed with.
NEXT = "_next"


@dataclass(frozen=True)
class State:
    """What a file keeps from one call to the next; false if it keeps nothing.

    Attributes:
        operators: the names of the operators that keep something, sorted.
        tensors: how many tensors LSTMs, RNNs and SVDFs keep between calls. `reset_all_variables` of
            LiteRT and `Reset` of TensorFlow Lite Micro set them to zero.
        variables: how many resource variables (VAR_HANDLE) the file has. No call sets them to
            their first values: that takes a new interpreter. TensorFlow Lite Micro must be given
            room for them (`MicroResourceVariables`), also where they never change.
        is_assigned: whether they change after they were initialized.
    """

    operators: tuple[str, ...]
    tensors: int
    variables: int
    is_assigned: bool

    def __bool__(self) -> bool:
        return self.tensors > 0 or self.is_assigned

    def __str__(self) -> str:
        if not self:
            return "none"
        kept = [(self.tensors, "tensor"), (self.variables * self.is_assigned, "variable")]
        counts = [f"{n} {kind}{'' if n == 1 else 's'}" for n, kind in kept if n]
        return f"{' and '.join(counts)} kept between calls ({', '.join(self.operators)})"


def state_outputs(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> dict[str, str]:
    """By the name of each input that is a state, the output that the next call takes it from.

    It is an output of the same form whose name is that of the input and `NEXT`.
    """
    by_name = {tensor.name: tensor for tensor in outputs}
    names = {tensor: tensor.name + NEXT for tensor in inputs}
    return {
        tensor.name: name
        for tensor, name in names.items()
        if replace(tensor, name=name) == by_name.get(name)
    }


def read_state(model: Any, names: Sequence[str]) -> State:
    """What a file keeps.

    Args:
        model: its unpacked `ModelT`.
        names: the names of its operator codes.
    """
    keeping: set[str] = set()
    tensors = 0
    handles = set()
    initializing = set()
    assigned = set()
    for number, graph in enumerate(model.subgraphs):
        operators = [(names[int(o.opcodeIndex)], o) for o in graph.operators or []]
        kept = kept_tensors(graph)
        tensors += len(kept)
        for name, operator in operators:
            if kept.intersection(_indices(operator.inputs)):
                keeping.add(name)
            elif name == "VAR_HANDLE":
                options = operator.builtinOptions
                handles.add((options.container, options.sharedName) if options else len(handles))
            elif name == "CALL_ONCE" and operator.builtinOptions:
                initializing.add(operator.builtinOptions.initSubgraphIndex)
            elif name == "ASSIGN_VARIABLE":
                assigned.add(number)
    is_assigned = bool(assigned - initializing)
    if is_assigned:
        keeping.add("ASSIGN_VARIABLE")
    return State(tuple(sorted(keeping)), tensors, len(handles), is_assigned)


def kept_tensors(graph: Any) -> set[int]:
    """The variable tensors of a graph that an operator reads as the call before left them."""
    variable = {index for index, tensor in enumerate(graph.tensors) if tensor.isVariable}
    kept: set[int] = set()
    written: set[int] = set()
    for operator in graph.operators or []:
        kept |= variable.intersection(_indices(operator.inputs)) - written
        written |= variable.intersection(_indices(operator.outputs))
    return kept


def _indices(stored: Iterable[Any] | None) -> set[int]:
    return {int(index) for index in (() if stored is None else stored)}
