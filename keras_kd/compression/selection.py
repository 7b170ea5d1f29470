"""Selection of the layers that a compression changes: by name, type or function."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any

from keras_kd._checks import problem
from keras_kd.compression.bridge.graph import Graph

# One name or type, several, or a function that is given the student's own layer.
Selection = str | type | Collection[str | type] | Callable[[Any], bool] | None


def select(
    graph: Graph,
    layers: Selection,
    skip: Selection,
    supports: Callable[[Any], bool],
    purpose: str,
) -> list[str]:
    """The unique names (see `Graph.names`) of the layers to act on, in the order of the graph.

    Args:
        graph: the student's.
        layers: what to act on; None for everything that is supported.
        skip: what to leave unchanged; None for nothing.
        supports: whether the compression can act on a layer of the student.
        purpose: what is done to a layer, as in "that can be {purpose}".

    Raises:
        TypeError: if a selection is of another type.
        ValueError: if a name is not in the student, if a layer chosen by its name is not supported,
            or if nothing is left.
    """
    names = graph.names()
    by_name = {names[id(layer)]: layer for layer in graph.layers()}
    supported = {name for name, layer in by_name.items() if supports(layer)}
    wanted = supported if layers is None else _matching("layers", layers, by_name)
    if layers is not None and not _is_function(layers):
        refused = [name for name in _named(layers) if name not in supported]
        if refused:
            raise problem(
                f"layers={layers!r}: {refused} cannot be {purpose}",
                f"layers that can be {purpose}: {sorted(supported)}",
                "leave the others out",
            )
    left_alone = set() if skip is None else _matching("skip", skip, by_name)
    chosen = [name for name in by_name if name in (wanted & supported) - left_alone]
    if not chosen and not any(getattr(layer, "trainable_weights", ()) for layer in graph.layers()):
        raise problem(
            f"a student {graph.name!r} without trainable weights that can be {purpose}",
            "trainable layers",
            "set trainable = True on the student and on each of student.layers; a Distiller "
            "freezes its teachers",
        )
    if not chosen:
        raise problem(
            f"a student {graph.name!r} in which no chosen layer can be {purpose}",
            f"at least one of {sorted(supported)}" if supported else "another student",
            "choose more layers or skip fewer, or leave this compression out",
        )
    return chosen


def _matching(argument: str, selection: Selection, by_name: dict[str, Any]) -> set[str]:
    if callable(selection) and not isinstance(selection, type):
        return {name for name, layer in by_name.items() if selection(layer)}
    items = [selection] if isinstance(selection, str | type) else selection
    is_list = isinstance(items, Collection)
    if not is_list or not all(isinstance(item, str | type) for item in items):
        raise problem(
            f"{argument}={selection!r}",
            "names or types of layers, or a function of a layer",
            f'pass {argument}=["conv1", keras.layers.Dense] or a function',
            kind=TypeError,
        )
    for name in _named(items):
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, n=1)
            raise problem(
                f"{argument}={selection!r}, in which {name!r} is no layer of the student",
                f"names out of {sorted(by_name)}",
                f"write {close[0]!r}" if close else f"correct `{argument}`",
            )
    # A type of Keras 3 also means the layer of that name in tf_keras.
    types = {item.__name__ for item in items if isinstance(item, type)}
    return set(_named(items)) | {
        name
        for name, layer in by_name.items()
        if types & {base.__name__ for base in type(layer).__mro__}
    }


def _named(selection: Any) -> list[str]:
    items = [selection] if isinstance(selection, str | type) else selection
    return [item for item in items if isinstance(item, str)]


def _is_function(selection: Selection) -> bool:
    return callable(selection) and not isinstance(selection, type)
