"""Time of a file in LiteRT in several settings, and its memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, check_integer, check_number, problem
from keras_kd._tables import Report, Table
from keras_kd._worker import Worker, WorkerError
from keras_kd.tflite.contents.byte_kinds import IDENTIFIER
from keras_kd.tflite.runtimes import litert
from keras_kd.tflite.runtimes.latency import Latency, summarized
from keras_kd.tflite.runtimes.litert import KERNELS, MODULE

_MOST_THREADS = 1024
_MOST_SPREAD = 2.0
_MOST_TRIES = 3
DOUBT = (
    "unsteady, or slower than one thread, after three tries: something else ran on this machine; "
    "measure it again"
)
# The third, "reference", is for comparing results.
_USUAL_KERNELS = ("xnnpack", "builtin")


@dataclass(frozen=True)
class Benchmark(Report):
    """The time and memory of a file in LiteRT on this machine; a row for each setting.

    `median`, `mean`, `p95`, `runs`, `threads` and `kernels` are those of the first setting.

    Attributes:
        latencies: one for each setting, measured in turns so that they can be compared.
        peak_memory_bytes: the most memory that a fresh process held that loads the file and runs
            it, Python, NumPy and LiteRT included; None if memory was not measured.
        model_memory_bytes: the part of it that comes with the model: the file, its weights as the
            kernels want them, its activations, and the code of its kernels. It is right to about
            0.1 MB. None if memory was not measured.
        outside_xnnpack: the operators that XNNPACK leaves to LiteRT's own kernels, each named once,
            in the order of the file; none if it runs the whole graph.
    """

    latencies: tuple[Latency, ...]
    peak_memory_bytes: int | None
    model_memory_bytes: int | None
    outside_xnnpack: tuple[str, ...]

    @property
    def doubtful(self) -> tuple[Latency, ...]:
        """The latencies that other load on the machine has distorted.

        The tenths of their runs differ much even after they were measured again, or more threads
        took much longer than one.
        """
        alone = {each.kernels: each.median for each in self.latencies if each.threads == 1}
        return tuple(
            each
            for each in self.latencies
            if each.spread > _MOST_SPREAD
            or (each.median > _MOST_SPREAD * alone.get(each.kernels, np.inf) and each.threads > 1)
        )

    @property
    def median(self) -> float:
        """Half of the runs took at most this many microseconds."""
        return self.latencies[0].median

    @property
    def mean(self) -> float:
        """The average run in microseconds."""
        return self.latencies[0].mean

    @property
    def p95(self) -> float:
        """95 % of the runs took at most this many microseconds."""
        return self.latencies[0].p95

    @property
    def runs(self) -> int:
        """How many runs were measured in each setting."""
        return self.latencies[0].runs

    @property
    def threads(self) -> int:
        """How many threads LiteRT was given."""
        return self.latencies[0].threads

    @property
    def kernels(self) -> str:
        """The kernels, for example "xnnpack"."""
        return self.latencies[0].kernels

    def _records(self) -> list[dict[str, Any]]:
        return [asdict(latency) for latency in self.latencies]

    def _parts(self) -> list[Table | str]:
        doubtful = self.doubtful
        rows = [
            [
                t.kernels,
                str(t.threads),
                f"{t.median:,.1f}{'*' if t in doubtful else ''}",
                *(f"{time:,.1f}" for time in (t.mean, t.p95)),
            ]
            for t in self.latencies
        ]
        header = ["kernels", "threads", "median µs", "mean µs", "95 % µs"]
        outside = ", ".join(self.outside_xnnpack)
        parts: list[Table | str] = [
            Table(header, rows),
            f"{self.runs:,} runs each; XNNPACK runs "
            f"{f'everything but {outside}' if outside else 'the whole graph'}",
        ]
        if self.peak_memory_bytes is not None and self.model_memory_bytes is not None:
            parts.append(
                f"peak memory: {self.peak_memory_bytes / 1e6:.1f} MB in a separate process, "
                f"{self.model_memory_bytes / 1e6:.1f} MB of it for the model"
            )
        return [*parts, *([f"* {DOUBT}"] if doubtful else [])]


def run_benchmark(
    content: bytes,
    inputs: Sequence[np.ndarray],
    runs: int,
    threads: int | Sequence[int] | None,
    kernels: str | Sequence[str] | None,
    memory: bool,
) -> Benchmark:
    """Measure time and memory; see `TFLiteModel.benchmark`.

    Args:
        content: the bytes of a file.
        inputs: one example: stored values for each input, in the order of the file.
        runs: how many runs are measured in each setting.
        threads: how many threads LiteRT may use, in turn. None: 1, and as many as there are cores.
        kernels: one of `TFLiteModel.predict`'s or several, in turn. None: XNNPACK and LiteRT's own.
        memory: whether memory is measured, too.
    """
    runs = check_integer("runs", runs, at_least=1, fix="pass a whole number such as 200")
    settings = [
        (check_choice("kernels", kind, KERNELS), _checked_threads(count))
        for kind in _each(kernels, _USUAL_KERNELS)
        for count in _each(threads, _usual_threads())
    ]
    files = [(content, *setting) for setting in settings]
    latencies = _measured(settings, files, inputs, runs)
    found = measure_memory(content, inputs, settings[0][0]) if memory else None
    return Benchmark(
        latencies=latencies,
        peak_memory_bytes=None if found is None else found.peak_bytes,
        model_memory_bytes=None if found is None else found.model_bytes,
        outside_xnnpack=litert.call("outside_xnnpack", content, inputs),
    )


def _measured(
    settings: Sequence[tuple[str, int]],
    files: Sequence[tuple[bytes, str, int]],
    inputs: Sequence[np.ndarray],
    runs: int,
) -> tuple[Latency, ...]:
    """The latency in each setting; of what is unsteady, the steadiest of several tries."""
    found: dict[int, Latency] = {}
    again = list(range(len(settings)))
    for _ in range(_MOST_TRIES):
        chosen = [files[index] for index in again]
        measured = litert.measure(chosen, [inputs] * len(chosen), runs)
        for index, microseconds in zip(again, measured, strict=True):
            kind, count = settings[index]
            latency = summarized(microseconds, count, kind)
            if index not in found or latency.spread < found[index].spread:
                found[index] = latency
        again = [index for index, latency in found.items() if latency.spread > _MOST_SPREAD]
        if not again:
            break
    return tuple(found[index] for index in range(len(settings)))


def _each(given: Any, usual: Sequence[Any]) -> Sequence[Any]:
    if given is None:
        return usual
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _usual_threads() -> list[int]:
    """One, and as many as the process may use at once."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return sorted({1, min(cores, _MOST_THREADS)})


def _checked_threads(count: Any) -> int:
    number = check_integer("threads", count, at_least=1, fix="pass 1")
    return int(check_number("threads", number, at_most=_MOST_THREADS, fix="pass 1"))


_MOST_SECONDS = 600


@dataclass(frozen=True)
class Memory:
    """The memory that a model takes in LiteRT, on one thread.

    Attributes:
        peak_bytes: the most that the process ever held, Python, NumPy and LiteRT included.
        model_bytes: the part of it that comes with the model: the file, its weights as the kernels
            want them, its activations, and the code of its kernels. The rest is there for the
            smallest model too.
    """

    peak_bytes: int
    model_bytes: int


def measure_memory(content: bytes, inputs: Sequence[np.ndarray], kernels: str) -> Memory:
    """Run one example in a fresh process and read the most memory that it held.

    Args:
        content: the bytes of a file that LiteRT has run before.
        inputs: stored values for each input, in the order of the file.
        kernels: one of `TFLiteModel.predict`'s.

    Raises:
        ValueError: if the process fails.
    """
    with tempfile.TemporaryDirectory(prefix="keras_kd_") as directory:
        path = Path(directory) / "model.tflite"
        path.write_bytes(content)
        with Worker(MODULE) as worker:
            try:
                before, after = worker.call(
                    "peaks", smallest_model(), str(path), inputs, kernels, seconds=_MOST_SECONDS
                )
            except (WorkerError, ValueError) as error:
                raise _failure(str(error)) from error
    return Memory(peak_bytes=after, model_bytes=after - before)


def smallest_model() -> bytes:
    """A .tflite file that takes one float32 and returns it if it is above 0, otherwise 0."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tensors = [schema.TensorT(), schema.TensorT()]
    for tensor, name in zip(tensors, ("x", "y"), strict=True):
        tensor.name, tensor.shape, tensor.type = name, [1], schema.TensorType.FLOAT32
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.RELU
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    # Buffer 0 is the one of tensors without stored values.
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _failure(reason: str) -> Exception:
    return problem(
        f"a model whose memory cannot be measured ({reason})",
        "a process that runs the model in LiteRT",
        "see that there is memory left for a second process",
    )
