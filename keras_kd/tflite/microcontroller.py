"""TensorFlow Lite Micro (TFLM): run a model as a microcontroller would, and measure its arena."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.runtime import TFLiteModel
from keras_kd.tflite.tensors import random_stored

_WORKER = Path(__file__).with_name("_tflm_worker.py")
_ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
# Kernels differ in how they round: by one step after a layer, which a softmax can make a few of.
# Kernels that compute something else are off by far more than this 5 % of the 256 steps.
_TOLERANCE_STEPS = 12
# Float kernels add up in different orders.
_TOLERANCE_FLOAT = 1e-4


@dataclass(frozen=True)
class MicrocontrollerRun:
    """What TFLM computed.

    Attributes:
        outputs: by output name real numbers, shaped (examples, ...).
        stored_outputs: by output name the values as the outputs store them, likewise.
        arena_bytes: the memory that TFLM took for activations and bookkeeping. It is an upper bound
            for a 32-bit microcontroller, where pointers are smaller.
    """

    outputs: dict[str, np.ndarray]
    stored_outputs: dict[str, np.ndarray]
    arena_bytes: int


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


def is_installed() -> bool:
    """Whether tflite-micro (the extra `micro`) is there."""
    return importlib.util.find_spec("tflite_micro") is not None


def run(model: TFLiteModel, x: Any) -> MicrocontrollerRun:
    """Run examples in TFLM, in a process of its own.

    Args:
        model: a model that LiteRT has loaded; it runs there once before it gets near TFLM.
        x: real numbers as for `TFLiteModel.predict`.

    Raises:
        ImportError: if tflite-micro is not installed.
        ValueError: if TFLM refuses the model; the message has its reason.
    """
    return run_stored(model, model.quantize_inputs(x))


def run_stored(model: TFLiteModel, inputs: Mapping[str, np.ndarray]) -> MicrocontrollerRun:
    """As `run`, on values as the inputs store them, by input name, shaped (examples, ...)."""
    if not is_installed():
        raise ImportError(
            problem(
                "a request to run in TensorFlow Lite Micro without its Python package",
                "tflite-micro to be installed",
                "pip install 'keras-kd[micro]'",
            )
        )
    ordered = [inputs[tensor.name] for tensor in model.inputs]
    if len(ordered[0]) == 0:
        raise ValueError(
            problem("no example", "at least one: the arena is measured on it", "pass x_test[:1]")
        )
    # LiteRT survives damaged models that crash TFLM.
    model.run_stored({name: array[:1] for name, array in inputs.items()}, kernels="builtin")
    with tempfile.TemporaryDirectory(prefix="keras_kd_") as directory:
        folder = Path(directory)
        (folder / "model.tflite").write_bytes(model.content)
        np.savez(folder / "inputs.npz", **{str(i): array for i, array in enumerate(ordered)})
        process = subprocess.run(
            [sys.executable, str(_WORKER), directory, str(len(model.outputs))],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if process.returncode != 0:
            raise ValueError(_refusal(process))
        with np.load(folder / "outputs.npz") as stored:
            stored_outputs = {t.name: stored[str(i)] for i, t in enumerate(model.outputs)}
    total = _ARENA_TOTAL.search(process.stderr)
    if total is None:
        raise ValueError(
            problem(
                f"no arena size from TFLM but {process.stderr[:300]!r}",
                "'Arena allocation total N bytes'",
                "install the tested version: pip install --upgrade 'keras-kd[micro]'",
            )
        )
    outputs = {t.name: t.dequantize(stored_outputs[t.name]) for t in model.outputs}
    return MicrocontrollerRun(outputs, stored_outputs, int(total.group(1)))


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


def _refusal(process: subprocess.CompletedProcess[str]) -> str:
    """TFLM gives its reason on standard error, before Python's traceback."""
    said, _, traceback = process.stderr.partition("Traceback (most recent call last)")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if process.returncode < 0:
        lines.append(f"its process was ended by signal {-process.returncode}")
    elif traceback:
        lines.append(traceback.strip().splitlines()[-1])
    return problem(
        f"a model that TensorFlow Lite Micro refuses ({'; '.join(lines)})",
        "operators and types that TFLM supports",
        "replace the layer that is named, or convert with target='microcontroller', which checks "
        "this",
    )
