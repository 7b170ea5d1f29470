"""Whether TensorFlow Lite Micro (TFLM) and LiteRT compute the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.microcontroller.running import run_stored
from keras_kd.tflite.model import TFLiteModel
from keras_kd.tflite.tensors import random_stored

# Kernels differ in how they round: by one step after a layer, which a softmax can make a few of.
# Kernels that compute something else are off by far more than this 5 % of the 256 steps.
_TOLERANCE_STEPS = 12
# Float kernels add up in different orders.
_TOLERANCE_FLOAT = 1e-4


@dataclass(frozen=True)
class Agreement:
    """How the results of TFLM and of LiteRT's built-in kernels compare.

    Attributes:
        examples: how many examples were run.
        equal: the share of output values that are equal bit by bit.
        largest_difference: the largest difference of two output values: for integers in
            quantization steps, for floats relative to the largest output (if that is above 1).
        arena_bytes: see `MicrocontrollerRun`.
    """

    examples: int
    equal: float
    largest_difference: float
    arena_bytes: int


def check_agreement(model: TFLiteModel, x: Any = None) -> Agreement:
    """Run examples in TFLM and in LiteRT's built-in kernels, and insist on the same results.

    Integer kernels may round differently, by a step or a few: 12 of 256 are allowed. Floats must
    agree to 1e-4 of the largest output.

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
        inputs = model.quantize_inputs(x)
    micro = run_stored(model, inputs)
    expected = model.run_stored(inputs, kernels="builtin")
    pairs = [(micro.stored_outputs[name], expected[name]) for name in expected]
    largest = max(_checked_difference(*pair) for pair in pairs)
    return Agreement(
        examples=len(pairs[0][0]),
        equal=float(np.concatenate([np.ravel(a == b) for a, b in pairs]).mean()),
        largest_difference=largest,
        arena_bytes=micro.arena_bytes,
    )


def _checked_difference(received: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, if it is one that rounding explains."""
    scale, tolerance = 1.0, _TOLERANCE_STEPS
    if np.issubdtype(expected.dtype, np.floating):
        scale, tolerance = max(1.0, float(np.abs(expected).max())), _TOLERANCE_FLOAT
    differences = np.abs(received.astype(np.float64) - expected.astype(np.float64)) / scale
    # Not `>`: it would let NaN pass.
    wrong = ~(differences.reshape(len(expected), -1).max(axis=1) <= tolerance)
    if wrong.any():
        raise ValueError(
            problem(
                "outputs of TensorFlow Lite Micro that differ from LiteRT's by up to "
                f"{differences.max():g} in {wrong.sum()} of {len(expected)} examples",
                f"a difference of at most {tolerance:g}: otherwise the device computes something "
                "else than was evaluated",
                "replace the layers that TFLM computes differently",
            )
        )
    return float(differences.max())
