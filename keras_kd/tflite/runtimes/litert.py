"""Files in LiteRT, which runs in a separate process: some damaged and some good ones crash it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd._checks import problem
from keras_kd._limits import free_bytes
from keras_kd._memory import size_of
from keras_kd._worker import Worker, WorkerError
from keras_kd.tflite.runtimes._litert_worker import RESOLVERS, Feedback, Setting, Unknown

KERNELS = tuple(RESOLVERS)
MODULE = "keras_kd.tflite.runtimes._litert_worker"
# For loading, and for each example. A student takes milliseconds for both; a file may loop forever.
_SECONDS = 60
# What goes through the pipe at once: as many examples as have about this many bytes.
_BYTES_AT_ONCE = 2**24

_worker = Worker(MODULE)


class LiteRTInterpreter:
    """A model ready to run in LiteRT.

    All of them run in one process beside this one, which holds neither Keras nor TensorFlow. If a
    model ends it, the others are loaded into a new one when they are used again.

    Args:
        content: the bytes of a .tflite file.
        kernels: "xnnpack", what runs on phones, "builtin", LiteRT's own, or "reference", its
            slow and plain ones.
        threads: how many threads it may use.

    Attributes:
        inputs: the inputs, a `TensorInfo` each, in the order of the file.
        outputs: the outputs, likewise.

    Raises:
        ValueError: if the bytes are not a model that LiteRT can load, or if they end its process or
            exceed the memory or the time that it may take.
    """

    def __init__(self, content: bytes, kernels: str = "xnnpack", threads: int = 1) -> None:
        self._content = content
        self._key = hashlib.sha256(content).hexdigest(), kernels, threads
        self.inputs, self.outputs = self._load()

    def run_each(
        self, inputs: Sequence[np.ndarray], feedback: Feedback | None = None
    ) -> list[np.ndarray]:
        """Run any number of examples, one by one.

        Args:
            inputs: stored values in the order of `inputs`, shaped (examples, ...).
            feedback: for a stream, in which each example begins with what the one before it left:
                pairs of the number of an input and of the output whose value it then takes. None:
                each example begins with the state of a new interpreter.

        Returns:
            Stored values in the order of `outputs`, shaped (examples, ...).

        Raises:
            ValueError: if the model cannot be run, or not on inputs of these sizes.
        """
        bytes_of_outputs = sum(size_of(t.shape, t.dtype.name) for t in self.outputs)
        count = len(inputs[0])
        returned = count * bytes_of_outputs
        # Reading how much is free takes longer than a small model.
        if returned > _BYTES_AT_ONCE and returned > (free := free_bytes()) // 2:
            raise problem(
                f"{count} examples for outputs of {bytes_of_outputs} bytes each, with {free} "
                "bytes of memory free",
                "outputs that take at most half of the free memory",
                "run fewer examples at once",
            )
        bytes_of_example = max(bytes_of_outputs, sum(array[:1].nbytes for array in inputs))
        at_once = max(1, _BYTES_AT_ONCE // max(1, bytes_of_example))
        # Once at least: where there is no example, the result shows the shapes.
        parts: list[list[np.ndarray]] = []
        for start in range(0, max(1, len(inputs[0])), at_once):
            part = [array[start : start + at_once] for array in inputs]
            for into, source in feedback or () if parts else ():
                part[into] = np.concatenate([parts[-1][source][-1:], part[into][1:]])
            parts.append(self._run(part, feedback, is_first=not parts))
        return (
            parts[0]
            if len(parts) == 1
            else [np.concatenate(part) for part in zip(*parts, strict=True)]
        )

    def _run(
        self, inputs: list[np.ndarray], feedback: Feedback | None, *, is_first: bool
    ) -> list[np.ndarray]:
        results = call("run_each", self._key, inputs, feedback, is_first)
        if isinstance(results, Unknown):
            if feedback is not None and not is_first:
                raise problem(
                    "a stream whose state was lost: the process of LiteRT is a new one",
                    "one process from the first example to the last",
                    "run the stream again, from its beginning",
                )
            self._load()
            results = call("run_each", self._key, inputs, feedback, is_first)
        return results

    def _load(self) -> Any:
        return call("load", self._key, self._content)


def measure(
    settings: Sequence[tuple[bytes, str, int]], inputs: Sequence[Sequence[np.ndarray]], runs: int
) -> list[np.ndarray]:
    """How many microseconds each of some runs takes, measured in turns so that they are comparable.

    Args:
        settings: the bytes of a file, kernels and threads.
        inputs: for each of them one example: stored values for each input.
        runs: how many runs of each are measured.

    Returns:
        For each setting an array shaped (runs,).

    Raises:
        ValueError: as `LiteRTInterpreter`.
    """
    return call("measure", [Setting(*setting) for setting in settings], inputs, runs)


def call(function: str, *arguments: Any, worker: Worker = _worker) -> Any:
    """Call a function of `_litert_worker` in its process.

    Raises:
        ValueError: what the function raises, or if the process ends.
    """
    try:
        return worker.call(function, *arguments, seconds=_SECONDS)
    except (WorkerError, RuntimeError, MemoryError) as error:
        raise problem(
            f"a model on which LiteRT fails ({error})",
            "an undamaged .tflite model of operators that LiteRT can run",
            "convert the student again, or copy the file again",
        ) from error
