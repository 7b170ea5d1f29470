"""The models that a quickstart compares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One model, and the form in which it goes to the device.

    Attributes:
        name: what it is called in the table.
        file_name: what its files are called.
        quantization: as for `keras_kd.tflite.convert`.
        target: as for `keras_kd.tflite.convert`.
        calibrated: whether the ranges of its activations are read from training images.
    """

    name: str
    file_name: str
    quantization: str = "float32"
    target: str = "android"
    calibrated: bool = False


TEACHER = "teacher"
ALONE = "student alone"
DISTILLED = "distilled"
DISTILLED_INT8 = "distilled, int8"
PRUNED = "distilled + pruned"
QUANTIZATION_AWARE = "distilled + QAT"
SMALLEST = "distilled + pruned + QAT"

COMPRESSED = (
    Variant(DISTILLED_INT8, "distilled_int8", "int8", "microcontroller", calibrated=True),
    Variant(PRUNED, "distilled_pruned"),
    Variant(QUANTIZATION_AWARE, "distilled_qat", "int8", "microcontroller"),
    Variant(SMALLEST, "distilled_pruned_qat", "int8", "microcontroller"),
)
ALL = (
    Variant(TEACHER, "teacher"),
    Variant(ALONE, "student_alone"),
    Variant(DISTILLED, "distilled"),
    *COMPRESSED,
)
