"""Score calibration: making the scores of different classes mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_kd._checks import check_choice, check_number, problem

TRANSFORMATIONS = ("identity", "log", "inverse_logistic")
_PARAMETERS = ("scale", "slope", "offset", "min_score")
_FIX = "pass (scale, slope, offset), (scale, slope, offset, min_score) or None for each class"


@dataclass(frozen=True)
class ScoreCalibration:
    """A sigmoid for each class, after which one threshold can serve all classes.

    The calibrated score of x is `scale / (1 + exp(-(slope * g(x) + offset)))`, or `default_score`
    for a class without parameters and for an x that is not above the class's `min_score`.

    Args:
        sigmoids: for each class `(scale, slope, offset)`, `(scale, slope, offset, min_score)` or
            None; the scale is not negative.
        transformation: g: "identity" x, "log" log(x), or "inverse_logistic" log(x) - log(1 - x).
        default_score: see above.

    Raises:
        TypeError: if a parameter is not a number.
        ValueError: if no class has parameters, if one has another number of them, or if they are
            not finite or the scale is negative.
    """

    sigmoids: Sequence[Sequence[float] | None]
    transformation: str = "identity"
    default_score: float = 0.0

    def __post_init__(self) -> None:
        check_choice("transformation", self.transformation, TRANSFORMATIONS)
        score = check_number("default_score", self.default_score, fix="pass 0.0")
        object.__setattr__(self, "default_score", score)
        if not isinstance(self.sigmoids, Sequence) or not any(self.sigmoids):
            raise problem(f"sigmoids={self.sigmoids!r}", "parameters for at least one class", _FIX)
        sigmoids = tuple(_checked(index, row) for index, row in enumerate(self.sigmoids))
        object.__setattr__(self, "sigmoids", sigmoids)

    def to_csv(self) -> str:
        """The text of the file in which the format keeps the sigmoids: a line for each class."""
        rows = (map(repr, row) if row is not None else () for row in self.sigmoids)
        return "\n".join(",".join(row) for row in rows)


def calibration_from_csv(
    text: str, transformation: str = "identity", default_score: float = 0.0
) -> ScoreCalibration:
    """The calibration whose `to_csv` is `text`.

    Raises:
        ValueError: if it is not of that form.
    """
    try:
        rows = [
            tuple(map(float, line.split(","))) if line.strip() else None
            for line in text.split("\n")
        ]
    except ValueError as error:
        raise problem(
            f"a score calibration with something that is no number ({error})",
            "three or four numbers with commas between them on each line, or nothing",
            "write the file again",
        ) from error
    return ScoreCalibration(rows, transformation, default_score)


def _checked(index: int, row: Any) -> tuple[float, ...] | None:
    if row is None:
        return None
    if not isinstance(row, Sequence) or len(row) not in (3, 4):
        raise problem(f"sigmoids[{index}]={row!r}", "three or four numbers, or None", _FIX)
    return tuple(
        check_number(f"the {name} of class {index}", value, at_least=bound, fix=_FIX)
        for name, value, bound in zip(_PARAMETERS, row, (0.0, None, None, None), strict=False)
    )
