"""Which layers are pruned, and the sparsity of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras_kd._checks import check_number, problem
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.kernels import is_depthwise, kernels
from keras_kd.compression.selection import Selection, select

# One share for all layers, one by name or type, or a function of the student's own layer.
SparsityTarget = float | Mapping[str | type, float] | Callable[[Any], float | None]

_PURPOSE = "pruned"


def sparsities(
    graph: Graph, sparsity: SparsityTarget, layers: Selection, skip: Selection
) -> dict[str, float]:
    """The final share of zeros of each layer to prune, by its unique name (see `Graph.names`).

    Args:
        graph: the student's.
        sparsity: see `prune`. Layers that a mapping or a function leaves out stay
            dense.
        layers: see `prune`.
        skip: see `prune`.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a share is out of range, or if nothing is left to prune.
    """
    by_name = {graph.names()[id(layer)]: layer for layer in graph.layers()}
    if callable(sparsity):
        wanted = {name: sparsity(layer) for name, layer in by_name.items() if _can(layer)}
        named = {name: share for name, share in wanted.items() if share is not None}
    elif isinstance(sparsity, Mapping):
        named = _by_name(graph, sparsity)
    else:
        _check_share("sparsity", sparsity)
        return dict.fromkeys(_select(graph, layers, skip), float(sparsity))
    for name, share in named.items():
        _check_share(f"sparsity of layer {name!r}", share)
    chosen = _select(graph, list(named) if layers is None else layers, skip)
    if not set(chosen) & set(named):
        raise problem(
            f"layers={layers!r}, none of which has a sparsity ({sorted(named)} have)",
            "layers that both name",
            "leave `layers` out",
        )
    return {name: float(named[name]) for name in chosen if name in named}


def _select(graph: Graph, layers: Selection, skip: Selection) -> list[str]:
    def supports(layer: Any) -> bool:
        return _can(layer) and (layers is not None or not is_depthwise(layer))

    return select(graph, layers, skip, supports, _PURPOSE)


def _by_name(graph: Graph, shares: Mapping[str | type, float]) -> dict[str, float]:
    """A layer's own name takes precedence over its type."""
    found: dict[str, float] = {}
    for kind in (type, str):
        for key, share in shares.items():
            if isinstance(key, kind):
                found |= dict.fromkeys(select(graph, [key], None, _can, _PURPOSE), share)
    if others := [key for key in shares if not isinstance(key, str | type)]:
        raise problem(
            f"sparsity with the keys {others}",
            "names or types of layers",
            'pass {"hidden": 0.9, keras.layers.Conv2D: 0.5}',
            kind=TypeError,
        )
    return found


def _check_share(name: str, share: Any) -> None:
    fix = "0.8 prunes four weights of five; leave out layers that stay dense"
    check_number(name, share, above=0, at_most=1 - 1e-9, fix=fix)


def _can(layer: Any) -> bool:
    return layer.trainable and bool(kernels(layer))
