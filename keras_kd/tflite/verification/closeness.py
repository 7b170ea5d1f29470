"""Whether a file is still the student, or computes something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_kd._checks import check_choice, problem
from keras_kd.tflite.verification.differences import OutputDifference

if TYPE_CHECKING:
    from keras_kd.tflite.verification.verification import Verification

# Fewer steps than this apart, two outputs cannot be told from rounding.
_STEPS = 4
# Fewer values than this may all be small by chance, beside what rounding them costs.
_FEWEST_VALUES = 16
# At this share of the deviation nothing of the student is left: its mean alone would be as close.
# It counts where a few examples are far from the rest, and the typical ones say little.
_NOTHING_LEFT = 0.8


@dataclass(frozen=True)
class _Tolerance:
    """How large the difference of an output may be, in nine of ten examples.

    Attributes:
        of_range: as a share of the range of the student's outputs, 0 included. It alone decides
            where the outputs hardly vary, as in untrained students.
        of_deviation: as a share of their standard deviation: what is left of the signal. Its
            square is error power over signal power.
        is_calibrated: whether values beyond what the file was calibrated on are cut off.
    """

    of_range: float
    of_deviation: float = 0.0
    is_calibrated: bool = False


# Measured on small trained and untrained students of many kinds (share of the range, of the
# deviation): float32 1e-7, float16 1e-4, dynamic_int8 .003 and .02, int8 .01 and .3 (where that is
# under two steps), int16x8 .002 and .006, int4 .03 and .11. What computed something else: an int8
# Bidirectional LSTM .16 and .77, columns of seven magnitudes in int8 .3 and 1.5, another student
# 1.4 of the deviation.
_TOLERANCES = {
    "float32": _Tolerance(1e-4),
    "float16": _Tolerance(1e-2),
    "dynamic_int8": _Tolerance(0.04, 0.4),
    "int8": _Tolerance(0.04, 0.4, is_calibrated=True),
    "int16x8": _Tolerance(0.04, 0.4, is_calibrated=True),
    "int4": _Tolerance(0.15, 0.7),
}


def check_close(verification: Verification, quantization: str) -> None:
    """Refuse a file that computes something else than its student.

    Quantization costs precision, and that is in the evidence for the user to judge. This is about
    files that are wrong: a converter's mistake, a range that was never calibrated, numbers that
    float16 cannot hold. Every output is judged by itself.

    Args:
        verification: how the file compares with the student. Not all of it is evidence against a
            file: random data may lie beyond what "int8" and "int16x8" were calibrated on, and a few
            values may all be small by chance. NaN always is.
        quantization: what was asked of `keras_kd.tflite.convert`.

    Raises:
        ValueError: if more than one in ten examples are further off than rounding explains, or if
            an output is NaN or infinite where the student's is not.
    """
    tolerance = _TOLERANCES[check_choice("quantization", quantization, tuple(_TOLERANCES))]
    for output in verification.outputs:
        if not np.isfinite(output.largest_difference):
            raise ValueError(
                problem(
                    f"a file whose output {output.name!r} is NaN or infinite where the student's "
                    "is not, or the other way round",
                    "numbers wherever the student computes numbers",
                    f"see whether the student itself computes finite numbers; {_fix(quantization)}",
                )
            )
        if _is_evidence(verification, output, tolerance):
            _check_output(output, tolerance, quantization)


def _is_evidence(
    verification: Verification, output: OutputDifference, tolerance: _Tolerance
) -> bool:
    if output.values < _FEWEST_VALUES:
        return False
    if tolerance.is_calibrated and verification.data == "random":
        return False
    # Where the best two classes are close, a rounded file may return the number of the other.
    return output.is_float or not tolerance.of_deviation


def _check_output(output: OutputDifference, tolerance: _Tolerance, quantization: str) -> None:
    allowed = max(
        tolerance.of_range * (output.high - output.low),
        tolerance.of_deviation * output.deviation,
        _STEPS * output.step,
    )
    for difference, limit, where in (
        (output.typical_difference, allowed, "and more in one of ten examples"),
        (output.square_difference, max(allowed, _NOTHING_LEFT * output.deviation), "on average"),
    ):
        if difference > limit:
            raise ValueError(
                problem(
                    f"a file whose output {output.name!r} is off by {difference:.3g} {where}; the "
                    f"student's goes from {output.low:.3g} to {output.high:.3g}",
                    f"at most {limit:.3g} for {quantization}: this file computes something else "
                    "than the student",
                    _fix(quantization),
                )
            )


def _fix(quantization: str) -> str:
    if quantization == "float32":
        return "replace the layers that TFLite computes differently"
    if quantization == "float16":
        return "choose quantization='float32': float16 holds numbers up to 65504"
    if quantization in ("int8", "int16x8"):
        return (
            "calibrate on representative_data like those compared, scale inputs of different "
            "magnitudes alike, or choose quantization='dynamic_int8'"
        )
    return "choose quantization='float32', or replace the layer that does not bear this one"
