"""Which compressions a student carries."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from keras_kd._checks import problem
from keras_kd.compression.bridge.graph import Graph

PRUNED = "pruned"
CLUSTERED = "clustered"
QUANTIZATION_AWARE = "quantization-aware"
# TF-MOT's classes, told by their names: importing them would cost seconds.
_MARKS = {
    "PruneLowMagnitude": PRUNED,
    "ClusterWeights": CLUSTERED,
    "QuantizeLayer": QUANTIZATION_AWARE,
    "QuantizeWrapper": QUANTIZATION_AWARE,
}


def state_of(layer: Any) -> str | None:
    """What a layer of TF-MOT says of the student it is part of; None for a plain layer."""
    names = {base.__name__ for base in type(layer).__mro__}
    return next((state for mark, state in _MARKS.items() if mark in names), None)


def check_state(graph: Graph, accepted: Collection[str], fix: str) -> None:
    """Refuse a student that carries a compression not among `accepted`.

    Args:
        graph: the student's.
        accepted: out of `PRUNED`, `CLUSTERED`, `QUANTIZATION_AWARE`.
        fix: what the user can do instead.

    Raises:
        ValueError: if it does; the message names the layer.
    """
    for layer in graph.layers():
        state = state_of(layer)
        if state is not None and state not in accepted:
            raise problem(
                f"a student that is {state} already (layer {layer.name!r})",
                " or ".join(["a plain student", *(f"a {state} one" for state in accepted)]),
                fix,
            )
