"""Masks of attention in integers: the number used as "minus infinity" must not be a range.

Attention gives masked places a number such as -1e9 before its softmax. Calibrated, the scores would
range from there, and 8 bits of such a range hold no score. A number a little below all scores has
the same effect: the softmax of it is 0 in 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd.tflite.conversion.integer_operators import (
    float_constant,
    float_values,
    makers_of,
)

# What is so far below 0 is no score but a mask.
_MASKING = -1e4
# All masked places together get less than e^-5 of the weight of one score, the lowest of all.
_MARGIN = 5.0
_CHOOSING = ("SELECT", "SELECT_V2")
_ADDING = ("ADD", "SUB")
# Between the mask and the softmax; all but the first hand on one operand.
_PASSED = (
    "BROADCAST_TO",
    "EXPAND_DIMS",
    "MUL",
    "NEG",
    "RESHAPE",
    "SLICE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TRANSPOSE",
)


@dataclass(frozen=True)
class _Place:
    """Where a masking number is read.

    Attributes:
        scores: the index of the tensor that the softmax reads.
        operator: what reads the number.
        position: as which of its inputs.
        values: the number, or several with zeros among them.
        is_added: whether it is added to scores, not put in their place.
        added: where it is, the indices of the scores without it and with it.
    """

    scores: int
    operator: Any
    position: int
    values: np.ndarray
    is_added: bool
    added: tuple[int, int] | None = None


def with_bounded_masks(model: Any, calibrate: Callable[[Any], Any]) -> Any:
    """The file with calibrated ranges, in which masks cost the scores of attention no precision.

    Args:
        model: the `ModelT` of a float32 file. Its masking numbers are replaced.
        calibrate: returns the `ModelT` of a file with its ranges, and leaves its argument as it is.

    Returns:
        The `ModelT` of the calibrated file. Its softmaxes give what they gave, to the precision of
        8 bits.
    """
    graph = model.subgraphs[0]
    places = _places(model, graph)
    if not places:
        return calibrate(model)
    originals = [int(place.operator.inputs[place.position]) for place in places]
    # Without masks, the ranges are those of the scores.
    _mask_by(model, graph, places, [0.0] * len(places))
    limits = _limits(calibrate(model))
    found = {place.scores: limits[place.scores] for place in places}
    lowest = {
        index: low - _MARGIN - math.log(abs(int(graph.tensors[index].shape[-1])))
        for index, (low, _) in found.items()
    }
    for place, original in zip(places, originals, strict=True):
        place.operator.inputs[place.position] = original
    factors = []
    for place in places:
        high = found[place.scores][1] if place.is_added else 0.0
        factors.append(lowest[place.scores] - high)
    _mask_by(model, graph, places, factors)
    calibrated = calibrate(model)
    for place in places:
        low, high = found[place.scores]
        # A sum ends at the lowest number of its range, so that one bias serves all scores.
        ends = {place.scores: (lowest[place.scores], high)}
        if place.added is not None:
            ends[place.added[0]] = (low, high)
            ends[place.added[1]] = (lowest[place.scores], high)
        for index, (least, most) in ends.items():
            _narrow(calibrated.subgraphs[0].tensors[index], least, most)
    return calibrated


def _mask_by(model: Any, graph: Any, places: list[_Place], numbers: list[float]) -> None:
    """Put these numbers in place of the masking ones."""
    for place, number in zip(places, numbers, strict=True):
        values = place.values * (abs(number) / np.abs(place.values).max())
        operator, inputs = place.operator, list(map(int, place.operator.inputs))
        inputs[place.position] = float_constant(model, graph, values, "masked")
        operator.inputs = inputs


def _places(model: Any, graph: Any) -> list[_Place]:
    makers = makers_of(model, graph)
    found: list[_Place] = []
    for name, operator in makers.values():
        if name == "SOFTMAX":
            _search(model, graph, makers, int(operator.inputs[0]), int(operator.inputs[0]), found)
    return found


def _search(
    model: Any, graph: Any, makers: dict[int, Any], scores: int, index: int, found: list[_Place]
) -> None:
    """Follow scores back to the masks that are put over them."""
    name, operator = makers.get(index, ("", None))
    if name in _PASSED:
        _search(model, graph, makers, scores, int(operator.inputs[0]), found)
    elif name in _CHOOSING:
        for position in (1, 2):
            read = int(operator.inputs[position])
            values = _masking(model, graph, read)
            if values is None:
                _search(model, graph, makers, scores, read, found)
            else:
                found.append(_Place(scores, operator, position, values, is_added=False))
    elif name in _ADDING:
        read = [int(i) for i in operator.inputs[:2]]
        for position, other in ((1, 0), (0, 1)):
            place = _bias(model, graph, makers, operator, position)
            if place is not None:
                added = read[other], int(operator.outputs[0])
                found.append(_Place(scores, *place, is_added=True, added=added))
                _search(model, graph, makers, scores, read[other], found)
                return
        for each in read:
            _search(model, graph, makers, scores, each, found)


def _bias(
    model: Any, graph: Any, makers: dict[int, Any], operator: Any, position: int
) -> tuple[Any, int, np.ndarray] | None:
    """Where the masking number of what is added to scores is read: by which operator, as what."""
    read = int(operator.inputs[position])
    values = _masking(model, graph, read, either_sign=True)
    if values is not None:
        return operator, position, values
    name, maker = makers.get(read, ("", None))
    if name not in (*_PASSED, *_CHOOSING):
        return None
    for each in range(len(maker.inputs)):
        if name in _CHOOSING and each == 0:
            continue
        place = _bias(model, graph, makers, maker, each)
        if place is not None:
            return place
    return None


def _masking(model: Any, graph: Any, index: int, either_sign: bool = False) -> np.ndarray | None:
    """Stored numbers that mask: one that is large, alone or with zeros; None for others."""
    values = float_values(model, graph, index) if index >= 0 else None
    if values is None or not values.size:
        return None
    shape = graph.tensors[index].shape
    values = values.astype(np.float64).reshape([] if shape is None else list(map(int, shape)))
    extreme = values.max() if either_sign and values.max() > -values.min() else values.min()
    is_large = extreme < _MASKING or (either_sign and extreme > -_MASKING)
    return values if is_large and np.isin(values, (0.0, extreme)).all() else None


def _limits(model: Any) -> dict[int, tuple[float, float]]:
    """The calibrated ranges, 0 included, by index of the tensor."""
    return {
        index: (min(0.0, float(found.min[0])), max(0.0, float(found.max[0])))
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if (found := tensor.quantization) is not None
        and found.min is not None
        and len(found.min) == 1
    }


def _narrow(tensor: Any, low: float, high: float) -> None:
    """The range without what is outside: other tensors that share the memory are noted in it."""
    found = tensor.quantization
    if found is not None and found.min is not None and len(found.min) == 1:
        found.min = [max(low, float(found.min[0]))]
        found.max = [min(high, float(found.max[0]))]
