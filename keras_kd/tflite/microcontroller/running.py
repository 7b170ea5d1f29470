"""Running a model in TensorFlow Lite Micro (TFLM), as a microcontroller would."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd.tflite.model import TFLiteModel

_WORKER = Path(__file__).with_name("_tflm_worker.py")
# A student runs in milliseconds. What is damaged can run forever.
_SECONDS_TO_START = 60
_SECONDS_PER_EXAMPLE = 10


@dataclass(frozen=True)
class MicrocontrollerRun:
    """What TFLM computed.

    Attributes:
        outputs: by output name real numbers, shaped (examples, ...).
        stored_outputs: by output name the values as the outputs store them, likewise.
        arena_bytes: the memory that TFLM needs for activations and bookkeeping: the smallest arena
            in which the model ran here, to 64 bytes. It is an upper bound for the same kernels on
            a 32-bit microcontroller, where pointers are smaller.
    """

    outputs: dict[str, np.ndarray]
    stored_outputs: dict[str, np.ndarray]
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
    check_sizes(model)
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
        process = _run_worker(directory, len(model.outputs), len(ordered[0]))
        if process.returncode != 0:
            raise ValueError(_refusal(process))
        with np.load(folder / "outputs.npz") as stored:
            stored_outputs = {t.name: stored[str(i)] for i, t in enumerate(model.outputs)}
            arena_bytes = int(stored["arena"])
    outputs = {t.name: t.dequantize(stored_outputs[t.name]) for t in model.outputs}
    return MicrocontrollerRun(outputs, stored_outputs, arena_bytes)


def check_sizes(model: TFLiteModel) -> None:
    """Refuse inputs of any length: TFLM plans its memory once, for the sizes in the file.

    Raises:
        ValueError: if the model has one.
    """
    resizable = [str(tensor) for tensor in model.inputs if tensor.takes_any_length]
    if resizable:
        raise ValueError(
            problem(
                f"a model with {', '.join(resizable)}",
                "inputs of a fixed size: TensorFlow Lite Micro cannot resize them",
                "convert a student that is built with the size that the device will feed",
            )
        )


def _run_worker(directory: str, outputs: int, examples: int) -> subprocess.CompletedProcess[str]:
    seconds = _SECONDS_TO_START + _SECONDS_PER_EXAMPLE * examples
    try:
        return subprocess.run(
            [sys.executable, str(_WORKER), directory, str(outputs)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            problem(
                f"a model that did not finish {examples} examples in TensorFlow Lite Micro within "
                f"{seconds} seconds",
                f"at most {_SECONDS_PER_EXAMPLE} seconds for an example",
                "convert the student again if the file may be damaged; otherwise it is too large "
                "for a microcontroller",
            )
        ) from error


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
