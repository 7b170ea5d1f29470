"""The share of the free memory that an untrusted file may take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from keras_kd._limits import free_bytes

MEBIBYTE = 1 << 20
# A model takes so much whatever is stored of it: random weights, zeros.
ALWAYS_ALLOWED_BYTES = 64 * MEBIBYTE
# What Keras and NumPy write is hardly smaller than what it represents; compressed images of few
# colours shrink to a tenth, weights that are mostly zero to a twentieth.
MOST_EXPANSION = 100
# The results of a model for one example: at least, at most, and as a part of the free memory.
_RESULT_BYTES = (1 << 30, 1 << 33)
_SHARE_OF_RESULTS = 16
# What TensorFlow takes for an empty one.
_BYTES_OF_STRING = 24


def check_expansion(
    what: str, declared: int, stored: int, always: int = ALWAYS_ALLOWED_BYTES
) -> None:
    """Refuse what would fill the memory with much more than was stored.

    Args:
        what: what declares its size, for the message.
        declared: bytes of memory that it needs by its own account.
        stored: bytes of the whole file on the disk.
        always: bytes that any file may take.

    Raises:
        ValueError: if it declares more than `always` and a hundred times what is stored, more than
            is stored and half of the free memory, or more than is free.
    """
    if declared <= always:
        return
    if declared > MOST_EXPANSION * stored:
        raise ValueError(f"{what} declares {declared} bytes, of which {stored} are stored")
    free = free_bytes()
    if declared > (free if declared <= stored else free // 2):
        raise ValueError(
            f"{what} declares {declared} bytes, of which {stored} are stored, and {free} bytes of "
            "memory are free"
        )


def most_result_bytes() -> int:
    """How much the results of a model's layers for one example may take at one time."""
    least, most = _RESULT_BYTES
    return min(most, max(least, free_bytes() // _SHARE_OF_RESULTS))


def size_of(shape: Iterable[int | None], dtype: str) -> int:
    """Bytes of a tensor; sizes that are not known, such as the batch, count as 1."""
    bits = re.search(r"\d+", dtype)
    values = math.prod(max(size, 0) for size in shape if size is not None and size != -1)
    if dtype == "string":
        return values * _BYTES_OF_STRING
    return values * (-(-int(bits[0]) // 8) if bits else 1)


def most_alive(
    inputs: Mapping[Hashable, int],
    steps: Sequence[tuple[str, Iterable[Hashable], Mapping[Hashable, int], int]],
    outputs: Iterable[Hashable],
) -> tuple[int, str]:
    """The most memory that results take at one time, where each goes after its last use.

    Args:
        inputs: bytes of each input.
        steps: in the order of computation: name, what is read, bytes of each result, and bytes of
            what exists only during the step.
        outputs: what stays to the end.

    Returns:
        Bytes, and the name of the step at which they are needed.
    """
    last = {tensor: place for place, (_, read, _, _) in enumerate(steps) for tensor in read}
    last |= dict.fromkeys(outputs, len(steps))
    alive = dict(inputs)
    now = sum(alive.values())
    most, name = now, "input"
    for place, (step, read, results, during) in enumerate(steps):
        now += sum(size for tensor, size in results.items() if tensor not in alive)
        alive |= results
        if now + during > most:
            most, name = now + during, step
        for tensor in {*read, *results}:
            if last.get(tensor, place) <= place:
                now -= alive.pop(tensor, 0)
    return most, name


def check_results(
    what: str,
    graph: Any,
    describe: Callable[[Any], tuple[Sequence[tuple], Iterable[Hashable]]],
) -> None:
    """Refuse a graph whose results would fill the memory when it computes one example.

    Args:
        what: what computes, for the message.
        graph: the graph.
        describe: its steps and its outputs as for `most_alive`, where each step has, in the place
            of bytes, the graphs that are computed inside it.

    Raises:
        ValueError: if they take more than `most_result_bytes`.
    """
    size, name = _most_in(graph, describe, {})
    if size > most_result_bytes():
        raise ValueError(f"its {what} hold {size} bytes at one time for one example, at {name!r}")


def _most_in(graph: Any, describe: Callable, known: dict[int, tuple[int, str]]) -> tuple[int, str]:
    """As `most_alive`; a graph that is called several times is looked at once."""
    if id(graph) not in known:
        steps, outputs = describe(graph)
        measured = [
            (*step, max((_most_in(inner, describe, known)[0] for inner in inside), default=0))
            for *step, inside in steps
        ]
        known[id(graph)] = most_alive({}, measured, outputs)
    return known[id(graph)]
