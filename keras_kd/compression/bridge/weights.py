"""Names of a layer's weights, the same in both versions of Keras."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from keras_kd.compression.layers import row_of


def weight_name(weight: Any) -> str:
    """`"kernel"` for a variable that Keras 3 calls `kernel` and tf_keras `block/conv/kernel:0`."""
    name = weight.name.split("/")[-1].split(":")[0]
    # Keras 3 counts the variables that were given no name over all models.
    return re.sub(r"^variable_\d+$", "variable", name)


def named_weights(layer: Any) -> dict[str, Any]:
    """The weights of a layer of either Keras by names that are unique in the layer.

    These are the last parts of their own names, as `"kernel"`. Where a layer has several of one
    name, the name of the layer's part comes first, as `"query_dense/kernel"`, or they are numbered.
    Counters of random generators come last.
    """
    # An opaque layer has the names of the Keras 3 layer that it holds.
    layer = getattr(layer, "keras_layer", layer)
    weights = [*layer.weights, *_seeds(layer)]
    names = [weight_name(weight) for weight in weights]
    if len(set(names)) < len(names):
        paths = dict(_paths(layer))
        names = [paths.get(id(weight), "") + weight_name(weight) for weight in weights]
    return dict(zip(_numbered(names), weights, strict=True))


def is_seed(name: str) -> bool:
    """Whether a weight of this name is the counter of a random generator."""
    return "seed_generator_state" in name


def _seeds(layer: Any) -> list[Any]:
    known = {id(weight) for weight in layer.weights}
    others = [weight for weight in layer.variables if id(weight) not in known]
    return [weight for weight in others if is_seed(weight.name)]


def _paths(layer: Any, prefix: str = "") -> Iterator[tuple[int, str]]:
    """The `id` of each weight in the parts of a layer, and its place."""
    row = row_of(type(layer))
    for attribute in () if row is None else row.parts:
        part = getattr(layer, attribute, None)
        numbered = (
            [(f"{attribute}_{index}", item) for index, item in enumerate(part)]
            if isinstance(part, (list, tuple))
            else [(attribute, part)]
        )
        for name, item in numbered:
            path = f"{prefix}{name.strip('_')}/"
            yield from ((id(weight), path) for weight in getattr(item, "weights", ()))
            yield from _paths(item, path)


def _numbered(names: list[str]) -> list[str]:
    """Equal names with a number behind each but the first."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        numbered.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return numbered
