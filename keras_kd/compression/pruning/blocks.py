"""Depth: the blocks of a graph that can be replaced by their input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_kd.compression.bridge.graph import Call, Graph, Slot
from keras_kd.compression.bridge.rebuilding import rebuild
from keras_kd.compression.bridge.translation import record_of
from keras_kd.compression.layers import row_of
from keras_kd.compression.pruning.flow import shapes_of

# A block that keeps the shape may follow one that halves it.
_OWN_OPTIONS = frozenset({"name", "seed", "dtype", "build_config", "trainable", "strides"})


@dataclass(frozen=True)
class Block:
    """Calls between two tensors of one shape; without them the first takes the second's place.

    Attributes:
        begin: the tensor that enters.
        end: the tensor that leaves.
        calls: what is computed in between.
    """

    begin: Slot
    end: Slot
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class _Step:
    """The layers between two tensors through which everything passes."""

    begin: Slot
    end: Slot
    calls: tuple[Call, ...]
    signature: tuple[str, ...]


def removable_blocks(graph: Graph) -> list[Block]:
    """The blocks that can be left out of a graph with one input, in their order.

    A block repeats the one before it (the same layers with the same options, strides left out), or
    it is a residual block, whose branches are merged with what enters it. It has kernels, and its
    input and output have the same shape.
    """
    shapes = shapes_of(graph)
    steps = _steps(graph)
    found: dict[tuple[int, int], Block] = {}
    for length in range(1, len(steps) + 1):
        for first in range(len(steps) - length + 1):
            part = steps[first : first + length]
            before = steps[first - length : first] if first >= length else []
            repeats = [step.signature for step in before] == [step.signature for step in part]
            is_residual = length == 1 and len(part[0].calls) > 1
            begin, end = part[0].begin, part[-1].end
            if not (repeats or is_residual) or shapes[begin] != shapes[end]:
                continue
            calls = tuple(call for step in part for call in step.calls)
            inside = any(first <= a and b <= first + length for a, b in found)
            if _has_kernel(calls) and not inside:
                found[first, first + length] = Block(begin, end, calls)
    return [found[key] for key in sorted(found)]


def without(graph: Graph, block: Block) -> Graph:
    """The graph without a block: what enters it takes the place of what leaves it."""
    gone = {id(call) for call in block.calls}

    def moved(structure: Any) -> Any:
        return keras.tree.map_structure(
            lambda leaf: block.begin if leaf == block.end else leaf, structure
        )

    calls = tuple(
        replace(call, arguments=moved(call.arguments))
        for call in graph.calls
        if id(call) not in gone
    )
    return replace(graph, calls=calls, outputs=moved(graph.outputs))


def without_last_blocks(graph: Graph, count: int) -> Graph:
    """The graph without some of its removable blocks, those nearest to the output first.

    Args:
        graph: of a Keras 3 model.
        count: how many, at most as many as can be left out one after the other.
    """
    for _ in range(count):
        graph = without(graph, removable_blocks(graph)[-1])
    return graph


def removable_count(graph: Graph) -> int:
    """How many blocks can be left out one after the other."""
    count = 0
    while blocks := removable_blocks(graph):
        graph = without(graph, blocks[-1])
        count += 1
    return count


def rebuilt(graph: Graph) -> keras.Model:
    """A Keras 3 model of a Keras 3 graph, with copies of its layers and weights."""
    return rebuild(graph, keras, lambda layer: [record_of(layer)])


def _steps(graph: Graph) -> list[_Step]:
    """The graph cut at each tensor through which everything passes."""
    outputs = [leaf for leaf in keras.tree.flatten(graph.outputs) if isinstance(leaf, Slot)]
    uses = Counter(slot for call in graph.calls for slot in call.operands())
    uses.update(outputs)
    shared = Counter(id(call.layer) for call in graph.calls)
    if len(graph.input_specs) != 1:
        return []
    begin = graph.input_specs[0].slot
    waiting = {begin}
    steps: list[_Step] = []
    since: list[Call] = []
    for call in graph.calls:
        since.append(call)
        for slot in call.operands():
            uses[slot] -= 1
        waiting |= set(call.results)
        waiting = {slot for slot in waiting if uses[slot] > 0}
        if len(waiting) == 1:
            [end] = waiting
            is_own = all(shared[id(each.layer)] == 1 for each in since)
            signature = tuple(_signature(each) if is_own else str(id(each)) for each in since)
            steps.append(_Step(begin, end, tuple(since), signature))
            begin, since = end, []
    return steps


def _signature(call: Call) -> str:
    config = call.layer.get_config() if hasattr(call.layer, "get_config") else {}
    kept = {key: value for key, value in config.items() if key not in _OWN_OPTIONS}
    return f"{type(call.layer).__name__}{json.dumps(kept, sort_keys=True, default=str)}"


def _has_kernel(calls: Sequence[Call]) -> bool:
    rows = (row_of(type(call.layer)) for call in calls)
    return any(row is not None and row.kernels for row in rows)
