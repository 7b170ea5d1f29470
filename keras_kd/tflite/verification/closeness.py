"""Limits on the differences between a file's outputs and its student's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from keras_kd._checks import check_choice, problem, three_parts
from keras_kd.tflite.verification.differences import (
    NOTHING_LEFT,
    ChannelDifference,
    OutputDifference,
)
from keras_kd.tflite.verification.verification import Verification

# Fewer steps than this apart, two outputs may differ by rounding alone.
_STEPS = 4
# Fewer values than this may all be small by chance, beside what rounding them costs.
_FEWEST_VALUES = 16
# A file of 8 bits is as far off as rounding alone makes it: measured on 60 students, deep ones,
# recurrent ones and transformers among them, 0.9 to 1.2 times as far. Where numbers were cut off it
# was 3 to 70 times. Of single channels less is known; and all may be a step off by other causes.
_MOST_OF_ROUNDING = 2
_MOST_OF_ROUNDING_IN_A_CHANNEL = 3
# So few levels are seen in what is measured: 1013 and 1017, and nothing in between.
_FEW_LEVELS = 16


@dataclass(frozen=True)
class _Tolerance:
    """How large the difference of an output may be, in nine of ten examples.

    Attributes:
        of_range: as a share of the range of the student's outputs, 0 included. It alone decides
            where the outputs hardly vary, as in untrained students.
        of_deviation: as a share of their standard deviation: what is left of the signal. Its
            square is error power over signal power.
        is_calibrated: whether values beyond what the file was calibrated on are cut off.
        agreement: the share of clear choices that must be those of the student.
    """

    of_range: float
    of_deviation: float = 0.0
    is_calibrated: bool = False
    agreement: float = 0.995


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
    "int4": _Tolerance(0.15, 0.7, agreement=0.99),
}
_FIX_OF_VERIFY = (
    "pass the model that the file was made from, examples scaled as it was trained, or convert "
    "it again"
)


def misses(
    verification: Verification, quantization: str, min_agreement: float | None = None
) -> list[str]:
    """Why a file is not that of the student that it was compared with, a line each.

    Args:
        verification: how the file compares with the student.
        quantization: the form that the file is in, for example `FlatBufferModel.form`.
        min_agreement: the share of choices, 0 to 1, that must be those of the student. None: of
            the clear ones (`OutputDifference.clear_agreement`) 99.5 %, 99 % in int4, however many
            of the others change.
    """
    found = []
    try:
        check_close(verification, quantization, fix=_FIX_OF_VERIFY)
    except ValueError as error:
        found.append(str(error))
    for output in verification.outputs:
        if min_agreement is None:
            share, kind = output.clear_agreement, "clear choices"
            least = _TOLERANCES[quantization].agreement
        else:
            share, kind, least = output.agreement, "choices", min_agreement
        if share is not None and share < least:
            found.append(
                three_parts(
                    f"a file in which {100 * share:.2f} % of the {kind} of the output "
                    f"{output.name!r} are those of the model",
                    f"at least {100 * least:g} %",
                    f"{_FIX_OF_VERIFY}; if the file is good enough all the same, name the share "
                    "with --min-agreement",
                )
            )
    return found


def check_close(
    verification: Verification,
    quantization: str,
    fallback: str = "dynamic_int8",
    fix: str | None = None,
) -> None:
    """Refuse a file that computes something else than its student, and warn of lost channels.

    Quantization costs precision, and that is in the evidence for the user to judge. This is about
    files that are wrong: a converter's mistake, a range that was never calibrated, numbers that
    float16 cannot hold, numbers that are cut off. Every output is judged separately. A file that is
    close as a whole may still have lost single channels: a warning names these, and columns of
    which a few levels are left.

    Args:
        verification: how the file compares with the student. Not all of it is evidence against a
            file: random data may lie beyond what "int8" and "int16x8" were calibrated on, and a few
            values may all be small by chance. NaN always is.
        quantization: as for `keras_kd.tflite.convert`.
        fallback: a form for what integers cannot compute, which messages name.
        fix: what to do about a file that is wrong; None: what is to be changed in `convert`.

    Raises:
        ValueError: if more than one in ten examples are further off than rounding explains, or if
            an output is NaN or infinite where the student's is not.
    """
    tolerance = _TOLERANCES[check_choice("quantization", quantization, tuple(_TOLERANCES))]
    fix = fix or _fix(quantization, fallback)
    for output in verification.outputs:
        if not np.isfinite(output.largest_difference):
            raise problem(
                f"a file whose output {output.name!r} is NaN or infinite where the student's "
                "is not, or the other way round",
                "numbers wherever the student computes numbers",
                f"see whether the student itself computes finite numbers; {fix}",
            )
        if _is_evidence(verification, output, tolerance):
            _check_output(output, tolerance, quantization, fix)
            _check_rounding(output, quantization, fix)


def _is_evidence(
    verification: Verification, output: OutputDifference, tolerance: _Tolerance
) -> bool:
    if output.values < _FEWEST_VALUES:
        return False
    if tolerance.is_calibrated and verification.data == "random":
        return False
    # Where the best two classes are close, a rounded file may return the number of the other.
    return output.is_float or not tolerance.of_deviation


def _check_output(
    output: OutputDifference, tolerance: _Tolerance, quantization: str, fix: str
) -> None:
    allowed = max(
        tolerance.of_range * (output.high - output.low),
        tolerance.of_deviation * output.deviation,
        _STEPS * output.step,
    )
    for difference, limit, where in (
        (output.typical_difference, allowed, "and more in one of ten examples"),
        (output.square_difference, max(allowed, NOTHING_LEFT * output.deviation), "on average"),
    ):
        if difference > limit:
            raise problem(
                f"a file whose output {output.name!r} is off by {difference:.3g} {where}; the "
                f"student's goes from {output.low:.3g} to {output.high:.3g}",
                f"at most {limit:.3g} for {quantization}: the outputs of this file are not those "
                "of the student",
                fix,
            )


def _check_rounding(output: OutputDifference, quantization: str, fix: str) -> None:
    """Refuse what is further off than rounding to the steps of the file explains."""
    if output.rounding_difference is None or not output.is_float:
        return
    parts: list[tuple[str, OutputDifference | ChannelDifference, float, int]] = [
        (f"output {output.name!r}", output, _MOST_OF_ROUNDING, 1)
    ]
    for number, channel in enumerate(output.channels):
        name = f"channel {number} of the output {output.name!r}"
        parts.append((name, channel, _MOST_OF_ROUNDING_IN_A_CHANNEL, 2))
    for name, part, most, steps in parts:
        rounding = part.rounding_difference
        if rounding is None:
            continue
        limit = max(most * rounding, rounding + steps * output.step)
        if part.typical_difference > limit:
            raise problem(
                f"a file whose {name} is off by {part.typical_difference:.3g} and more in one "
                f"of ten examples, where rounding explains {rounding:.3g}",
                f"at most {limit:.3g} for {quantization}: this file clips values inside, so its "
                "outputs are not those of the student",
                fix,
            )


def warn_of_lost(verification: Verification) -> None:
    """Warn of channels that a file hardly distinguishes, though it is close as a whole.

    Random data are no evidence for it.
    """
    if verification.data == "random":
        return
    for output in verification.outputs:
        lost = _lost(output)
        if lost is not None:
            warnings.warn(three_parts(*lost), stacklevel=3)


def _lost(output: OutputDifference) -> tuple[str, str, str] | None:
    """The parts of a warning about an output; None if there is none."""
    if output.values < _FEWEST_VALUES:
        return None
    if output.lost_channels and len(output.channels) > 1:
        names = ", ".join(map(str, output.lost_channels[:5]))
        more = ", ..." if len(output.lost_channels) > 5 else ""
        return (
            f"a file whose output {output.name!r} has lost the variation of the channels "
            f"[{names}{more}] of its last axis",
            "channels of about the same scale: a tensor of integers has one step for all of them",
            "scale the targets alike (and undo it after the file), give each quantity a layer and "
            "a separate output, or choose quantization='float32'",
        )
    levels = output.fewest_levels
    if levels is not None and levels < _FEW_LEVELS:
        return (
            f"a file that divides what the output {output.name!r} varies by into {levels:.0f} "
            f"levels: its step is {output.step:.3g}",
            f"at least {_FEW_LEVELS}: a range of integers always reaches to 0, however far from "
            "there the values are",
            "train on targets from which the mean is subtracted and which are divided by their "
            "deviation (and undo it after the file), or choose quantization='float32'",
        )
    return None


def _fix(quantization: str, fallback: str) -> str:
    if quantization == "float32":
        return "replace the layers that TFLite computes differently"
    if quantization == "float16":
        return "choose quantization='float32': float16 holds numbers up to 65504"
    if quantization in ("int8", "int16x8"):
        return (
            "calibrate on representative_data like those compared, scale inputs of different "
            f"magnitudes alike, or choose quantization={fallback!r}"
        )
    if quantization == "int4":
        return (
            "choose quantization='dynamic_int8', or train "
            "keras_kd.compression.quantize_aware(student, x_train, weight_bits=4), which "
            "is trained for 4 bits, and convert it to 'int8': its weights keep the 4 bits"
        )
    return "choose quantization='float32', or replace the layer that fails in this one"
