"""Comparison of TensorFlow Lite Micro (TFLM) with LiteRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._tables import Report
from keras_kd.tflite.microcontroller.reference import (
    with_dense_as_convolution,
    with_reference_versions,
)
from keras_kd.tflite.microcontroller.running import MicrocontrollerRun, run_stored
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.runtimes.litert import LiteRTInterpreter
from keras_kd.tflite.tensors import random_stored

# Float kernels add up in different orders. float32 keeps 7 digits, and sums of a few thousand
# products lose up to three of them; kernels that compute something else are off by far more.
TOLERANCE_FLOAT = 1e-4
# The only integer kernels found to round differently in TFLM, by the type of what they compute, and
# how many steps are allowed for them. MUL and SOFTMAX were one step of 65536 off in one value of
# ten thousand, an LSTM one step of 256 in one value of fifty; layers behind them can make a few of
# it.
_INEXACT = {
    ("int16", "MUL"): 4,
    ("int16", "SOFTMAX"): 4,
    ("int8", "UNIDIRECTIONAL_SEQUENCE_LSTM"): 4,
}

# How the converter writes a ReLU with an upper limit, which TFLM may compute differently.
_LIMITED = frozenset({"MAXIMUM", "MINIMUM", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1"})


@dataclass(frozen=True)
class Agreement(Report):
    """How the results of TFLM compare with those of LiteRT.

    Differences are in quantization steps where outputs are integers, and relative to the largest
    output (if that is above 1) where they are floats.

    Attributes:
        examples: how many examples were run.
        equal: the share of output values that are bit-equal to those of LiteRT's reference
            kernels; 1.0 where 0 is allowed.
        largest_difference: the largest difference from them.
        allowed_difference: what was allowed: 0 for files in integers, 4 for int8 with an
            LSTM and for int16 with MUL or SOFTMAX, 1e-4 for floats, or 4 steps of what is
            dequantized.
        optimized_equal: the share that is bit-equal to LiteRT's optimized built-in kernels, as
            `TFLiteModel.predict(x, kernels="builtin")` runs them on this processor.
        optimized_difference: the largest difference from them.
        arena_bytes: see `MicrocontrollerRun`.
        kernels: those of LiteRT that were compared with: "reference", or "builtin" where LiteRT has
            no reference kernel for an operator, ELU for example.
    """

    examples: int
    equal: float
    largest_difference: float
    allowed_difference: float
    optimized_equal: float
    optimized_difference: float
    arena_bytes: int
    kernels: str = "reference"

    def _records(self) -> list[dict[str, Any]]:
        return [asdict(self)]

    def _parts(self) -> list[str]:
        return [
            f"{self.examples} examples in TensorFlow Lite Micro: {self.equal:.2%} of the values "
            f"bit-equal to LiteRT's {self.kernels} kernels (largest difference "
            f"{self.largest_difference:g}, allowed {self.allowed_difference:g}), "
            f"{self.optimized_equal:.2%} to its optimized ones "
            f"(largest difference {self.optimized_difference:g})"
        ]


def check_agreement(model: TFLiteModel, x: Any = None) -> Agreement:
    """Run examples in TFLM and in LiteRT, and insist on the same results.

    Results of integers must be bit-equal to those of LiteRT's reference kernels, in which
    FULLY_CONNECTED runs as the CONV_2D that it is: its own reference kernel is the only one that
    rounds in floating point. Files with an operator that has no reference kernel are compared with
    LiteRT's built-in ones. LiteRT's optimized kernels round exact halves differently, depending
    on the processor; how far they are from TFLM is reported, and not limited. int16 with MUL
    or SOFTMAX may differ by 4 steps of 65536, int8 with an LSTM by 4 of 256 (one was seen), floats
    by 1e-4 of the largest output. Integers that come out as uint8 or as real numbers may differ
    by as many of their steps.

    Args:
        model: the model.
        x: real numbers as for `TFLiteModel.predict`; by default 8 random examples over the whole
            range of the inputs.

    Raises:
        ImportError: if tflite-micro is not installed.
        ValueError: if TFLM refuses the model or computes something else.
    """
    if x is None:
        inputs = {tensor.name: random_stored(tensor, 8) for tensor in model.inputs}
    else:
        inputs = model.quantize_steps(x)
    return compare_stored(model, inputs)[0]


def compare_stored(
    model: TFLiteModel, inputs: Mapping[str, np.ndarray]
) -> tuple[Agreement, MicrocontrollerRun]:
    """As `check_agreement`, on values as the inputs store them; also what TFLM computed."""
    micro = run_stored(model, inputs)
    received = [micro.stored_outputs[tensor.name] for tensor in model.outputs]
    reference, kernels = _run_reference(model, inputs)
    optimized = model.run_stored(inputs, kernels="builtin")
    differences = _differences(received, reference)
    from_optimized = _differences(received, [optimized[tensor.name] for tensor in model.outputs])
    allowed = _allowed_difference(model)
    _check(differences, allowed, model)
    agreement = Agreement(
        examples=len(received[0]),
        equal=float((differences == 0).mean()),
        largest_difference=float(differences.max()),
        allowed_difference=allowed,
        optimized_equal=float((from_optimized == 0).mean()),
        optimized_difference=float(from_optimized.max()),
        arena_bytes=micro.arena_bytes,
        kernels=kernels,
    )
    return agreement, micro


def _run_reference(
    model: TFLiteModel, inputs: Mapping[str, np.ndarray]
) -> tuple[list[np.ndarray], str]:
    """What LiteRT gives to compare with, and the kernels that gave it."""
    content = with_dense_as_convolution(model.content)
    try:
        kernels = "reference"
        interpreter = LiteRTInterpreter(with_reference_versions(content), kernels)
    except ValueError:
        # It has no such kernel for some operators (CEIL, ELU, ROUND), whatever their version.
        kernels = "builtin"
        interpreter = LiteRTInterpreter(content, kernels)
    return interpreter.run_each([inputs[tensor.name] for tensor in model.inputs]), kernels


def _differences(received: list[np.ndarray], expected: list[np.ndarray]) -> np.ndarray:
    """Of every output value, shaped (examples, values)."""
    columns = []
    for ours, theirs in zip(received, expected, strict=True):
        scale = 1.0
        if np.issubdtype(theirs.dtype, np.floating):
            scale = max(1.0, float(np.nanmax(np.abs(theirs), initial=0)))
        difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) / scale
        # Where both give NaN, as of a sentence without words, they agree.
        difference[np.isnan(ours) & np.isnan(theirs)] = 0
        columns.append(difference.reshape(len(theirs), -1))
    return np.concatenate(columns, axis=1)


def _allowed_difference(model: TFLiteModel) -> float:
    integers = "int16" if model.flatbuffer.form == "int16x8" else "int8"
    steps = [
        allowed
        for (name, operator), allowed in _INEXACT.items()
        if name == integers and operator in model.operators
    ]
    most = max(steps, default=0)
    if not any(np.issubdtype(tensor.dtype, np.floating) for tensor in model.outputs):
        return most
    # Real numbers at the end of a file of integers are a multiple of its steps.
    return max(TOLERANCE_FLOAT, most * max(model.flatbuffer.output_steps()))


def _check(differences: np.ndarray, allowed: float, model: TFLiteModel) -> None:
    # Not `>`: it would let NaN pass.
    wrong = ~(differences.max(axis=1) <= allowed)
    if wrong.any():
        raise problem(
            "outputs of TensorFlow Lite Micro that differ from LiteRT's by up to "
            f"{differences.max():g} in {wrong.sum()} of {len(differences)} examples "
            f"(operators: {', '.join(model.operators)})",
            f"a difference of at most {allowed:g}: otherwise the device does not compute what was "
            "evaluated",
            _way_out(model),
        )


def _way_out(model: TFLiteModel) -> str:
    if model.stateful:
        return (
            f"look at what the file keeps between calls first: {model.state}; convert a student "
            "with stateful=True in its recurrent layers, whose states become inputs and outputs"
        )
    fix = "replace the layers that TFLM computes differently"
    if _LIMITED.intersection(model.operators):
        fix += "; a ReLU with an upper limit belongs right behind a convolution or a dense layer"
    return fix
