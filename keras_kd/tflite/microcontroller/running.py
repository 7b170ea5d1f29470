"""Running a model in TensorFlow Lite Micro (TFLM), as a microcontroller would."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._worker import Worker, WorkerError
from keras_kd.tflite.model import TFLiteModel

# A student runs in milliseconds. What is damaged can run forever.
_SECONDS_TO_START = 60
_SECONDS_PER_EXAMPLE = 10

_worker = Worker("keras_kd.tflite.runtimes._tflm_worker")


@dataclass(frozen=True)
class MicrocontrollerRun:
    """What TFLM computed.

    Attributes:
        outputs: by output name real numbers, shaped (examples, ...).
        stored_outputs: by output name the values as the outputs store them, likewise.
        arena_bytes: the memory that TFLM needs for activations and bookkeeping: the smallest arena
            in which the model ran here, a multiple of 16 bytes. It is an upper bound for the same
            kernels on a 32-bit microcontroller, where pointers are smaller.
    """

    outputs: dict[str, np.ndarray]
    stored_outputs: dict[str, np.ndarray]
    arena_bytes: int


def is_installed() -> bool:
    """Whether tflite-micro (the extra `micro`) is there."""
    return importlib.util.find_spec("tflite_micro") is not None


def run(model: TFLiteModel, x: Any, *, stream: bool = False) -> MicrocontrollerRun:
    """Run examples in TFLM, in a separate process.

    Args:
        model: a model that LiteRT has loaded; it runs there once before it gets near TFLM.
        x: real numbers as for `TFLiteModel.predict`; in a stream as for `predict_stream`.
        stream: whether each example begins with the state that the one before it left. Otherwise
            each begins with the initial state of the file.

    Raises:
        ImportError: if tflite-micro is not installed.
        ValueError: if TFLM refuses the model; the message has its reason.
    """
    return run_stored(model, model.quantize_inputs(x), is_stream=stream)


def run_stored(
    model: TFLiteModel, inputs: Mapping[str, np.ndarray], *, is_stream: bool = False
) -> MicrocontrollerRun:
    """As `run`, on values as the inputs store them, by input name, shaped (examples, ...).

    In a stream each example begins with the state that the one before it left.
    """
    if not is_installed():
        raise problem(
            "a request to run in TensorFlow Lite Micro without its Python package",
            "tflite-micro to be installed",
            "pip install 'keras-kd[micro]'",
            kind=ImportError,
        )
    check_sizes(model)
    ordered = [inputs[tensor.name] for tensor in model.inputs]
    if len(ordered[0]) == 0:
        raise problem("no example", "at least one: the arena is measured on it", "pass x_test[:1]")
    # LiteRT survives damaged models that crash TFLM.
    model.run_stored({name: array[:1] for name, array in inputs.items()}, kernels="builtin")
    seconds = _SECONDS_TO_START + _SECONDS_PER_EXAMPLE * len(ordered[0])
    try:
        results, arena_bytes = _worker.call(
            "run_examples",
            model.content,
            ordered,
            len(model.outputs),
            model.state.variables > 0,
            model.feedback if is_stream else None,
            seconds=seconds,
        )
    except (WorkerError, ValueError) as error:
        raise problem(
            f"a model that TensorFlow Lite Micro refuses ({error})",
            "operators and types that TFLM supports",
            "replace the layer that is named, or convert with quantization='int8' or 'float32' "
            "and target='microcontroller'",
        ) from error
    stored_outputs = {t.name: results[i] for i, t in enumerate(model.outputs)}
    outputs = {t.name: t.dequantize(stored_outputs[t.name]) for t in model.outputs}
    return MicrocontrollerRun(outputs, stored_outputs, arena_bytes)


def check_sizes(model: TFLiteModel) -> None:
    """Refuse inputs of any length: TFLM plans its memory once, for the sizes in the file.

    Raises:
        ValueError: if the model has one.
    """
    resizable = [str(tensor) for tensor in model.inputs if tensor.takes_any_length]
    if resizable:
        raise problem(
            f"a model with {', '.join(resizable)}",
            "inputs of a fixed size: TensorFlow Lite Micro cannot resize them",
            "convert a student that is built with the size that the device will feed",
        )
