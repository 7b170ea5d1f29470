"""The range that a student was trained on, and whether examples lie in it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd._checks import check_number, problem, three_parts
from keras_kd._examples import identifier

InputRange = tuple[float, float] | Mapping[str, tuple[float, float]] | None
Ranges = Mapping[str, tuple[float, float] | None]
# A few outliers are what a range is there to cut off.
_TOLERATED_OUTSIDE = 0.01
# Rounding in the scaling of pixels.
_TOLERANCE = 0.01
# Of the range: 0..255 in place of 0..1 is 255 times too wide, 0..1 in place of 0..255 as narrow.
_TOO_WIDE = 8.0
_TOO_NARROW = 1 / 32

# What pixels are scaled to.
_USUAL = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))


def checked_ranges(input_range: InputRange, names: Sequence[str]) -> Ranges:
    """The range of each input by name; None where the user gives none.

    Args:
        input_range: (low, high) for all inputs, or a dict of them by name.
        names: of the inputs.

    Raises:
        TypeError: if a range is not two numbers.
        ValueError: if a name is unknown, or if a range is empty.
    """
    if input_range is None:
        return dict.fromkeys(names)
    if not isinstance(input_range, Mapping):
        input_range = dict.fromkeys(names, input_range)
    # As in the data, names are also those that users gave.
    input_range = {
        name if name in names else identifier(str(name)): limits
        for name, limits in input_range.items()
    }
    unknown = set(input_range) - set(names)
    if unknown:
        raise problem(
            f"input_range for the inputs {sorted(unknown)}",
            f"names out of {list(names)}",
            "use the names of the student's inputs",
        )
    return {name: _checked(input_range.get(name)) for name in names}


def usual_range(values: np.ndarray, is_rescaled: bool) -> tuple[float, float] | None:
    """The range of which these are pixels: 0..1, 0..255 or -1..1; None if it is none of them.

    Args:
        values: examples of an input.
        is_rescaled: whether the student begins with Rescaling or Normalization: dark pixels are of
            0..255 then, too.
    """
    smallest, largest = float(values.min()), float(values.max())
    if is_rescaled and smallest >= 0 and 1 < largest <= 255:
        return 0.0, 255.0
    for low, high in _USUAL:
        # All of it is a bit more than what the examples need, at most.
        if low <= smallest and (high - low) / 2 < largest - smallest and largest <= high:
            return low, high
    return None


def _checked(limits: Any) -> tuple[float, float] | None:
    if limits is None:
        return None
    fix = "pass input_range=(0, 1) for pixels of 0 to 1"
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise problem(f"input_range={limits!r}", "two numbers (from, to)", fix, kind=TypeError)
    low, high = (check_number("input_range", number, fix=fix) for number in limits)
    if not low < high:
        raise problem(f"input_range={limits!r}", "a range from low to high", fix)
    return low, high


def check_in_ranges(examples: Mapping[str, np.ndarray], ranges: Ranges) -> None:
    """Compare examples with the range that the student was trained on.

    Raises:
        ValueError: if they are scaled in another way. Where more than one value in a hundred lies
            outside, there is a warning.
    """
    for name, limits in ranges.items():
        values = examples[name]
        if limits is None or not np.issubdtype(values.dtype, np.floating):
            continue
        low, high = limits
        width = high - low
        smallest, largest = float(values.min()), float(values.max())
        excess = max(low - smallest, largest - high)
        if excess > _TOO_WIDE * width or largest - smallest < _TOO_NARROW * width:
            raise problem(
                f"representative_data from {smallest:g} to {largest:g} for the input {name!r} "
                f"with input_range={limits}",
                "examples scaled as those that the student was trained on",
                "scale them in the same way, or correct input_range",
            )
        margin = _TOLERANCE * width
        outside = float(np.mean((values < low - margin) | (values > high + margin)))
        if outside > _TOLERATED_OUTSIDE:
            warnings.warn(
                three_parts(
                    f"input_range={limits} for the input {name!r}, with {outside:.1%} of the "
                    "representative_data outside of it",
                    "a range that holds the inputs: in integers, others are clipped to it",
                    "widen the range, scale the data, or leave input_range out",
                ),
                stacklevel=4,
            )
