"""What a student lost when it was made narrower."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_kd._checks import problem
from keras_kd._keras import check_model
from keras_kd._tables import aligned
from keras_kd.compression.bridge import graph as graphs
from keras_kd.compression.bridge.graph import Graph
from keras_kd.compression.bridge.weights import weight_name
from keras_kd.compression.layers import row_of
from keras_kd.compression.pruning.flow import shapes_of
from keras_kd.compression.stripping import strip


@dataclass(frozen=True)
class Shrinkage:
    """How much smaller a model is than another; `print` shows it as a table.

    Attributes:
        layers: by name, the number of filters or units before and after.
        parameters_before: the number of all weights.
        parameters_after: the same of the smaller model.
        multiplications_before: of Dense and convolution layers, for one example; None where sizes
            are not known before a model sees data.
        multiplications_after: the same of the smaller model.
    """

    layers: Mapping[str, tuple[int, int]]
    parameters_before: int
    parameters_after: int
    multiplications_before: int | None
    multiplications_after: int | None

    def __str__(self) -> str:
        rows = [_row(name, *counts) for name, counts in self.layers.items()]
        rows.append(_row("all parameters", self.parameters_before, self.parameters_after))
        if self.multiplications_before is not None and self.multiplications_after is not None:
            rows.append(
                _row("multiplications", self.multiplications_before, self.multiplications_after)
            )
        return aligned(("filters or units of", "before", "after", "left"), rows)


def shrinkage(student: Any, smaller: Any) -> Shrinkage:
    """Compare a model that was made narrower with the one that it was made of.

    Args:
        student: what `remove_filters` was given, of either Keras.
        smaller: what it returned.

    Raises:
        ValueError: if one is not a model, or if `smaller` has other layers.
    """
    check_model("student", student)
    check_model("smaller", smaller)
    before, after = (graphs.read(strip(model)) for model in (student, smaller))
    widths, narrowed = _widths(before), _widths(after)
    if widths.keys() != narrowed.keys():
        others = sorted(widths.keys() ^ narrowed.keys())
        raise problem(
            f"two models of which only one has the layers {others}",
            "a student and what `remove_filters` made of it",
            "pass the student from before",
        )
    return Shrinkage(
        layers={name: (widths[name], narrowed[name]) for name in widths},
        parameters_before=_parameters(before),
        parameters_after=_parameters(after),
        multiplications_before=_multiplications(before),
        multiplications_after=_multiplications(after),
    )


def _widths(graph: Graph) -> dict[str, int]:
    names = graph.names()
    rows = {id(layer): row_of(type(layer)) for layer in graph.layers()}
    return {
        names[id(layer)]: getattr(layer, row.size)
        for layer in graph.layers()
        if (row := rows[id(layer)]) is not None and row.size is not None
    }


def _parameters(graph: Graph) -> int:
    return sum(layer.count_params() for layer in graph.layers() if hasattr(layer, "count_params"))


def _multiplications(graph: Graph) -> int | None:
    shapes = shapes_of(graph)
    total = 0
    for call in graph.calls:
        row = row_of(type(call.layer))
        if row is None or row.channels not in ("mix", "depthwise"):
            continue
        # Each entry of a kernel is used once per position; a transposed convolution spreads inputs.
        slot = call.operands()[0] if row.name.endswith("Transpose") else call.results[0]
        positions = shapes[slot][1:-1]
        if None in positions:
            return None
        used = [math.prod(w.shape) for w in call.layer.weights if row.kernel(weight_name(w))]
        total += sum(used) * math.prod(positions)
    return total


def _row(name: str, before: int, after: int) -> tuple[str, ...]:
    return name, f"{before:,}", f"{after:,}", f"{after / before:.0%}"
