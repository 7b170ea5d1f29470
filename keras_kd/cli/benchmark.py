"""`keras-kd benchmark`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from keras_kd._tables import aligned
from keras_kd.cli.arguments import add_json, check_files, whole_number
from keras_kd.cli.terminal import Outcome, working

if TYPE_CHECKING:
    from keras_kd.tflite import Benchmark

_HEADER = ("file", "kernels", "threads", "median", "mean", "95 %", "time", "memory", "memory ratio")


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "benchmark",
        help="measure how fast .tflite files run here, side by side",
        description="Measure how long .tflite files take for one example in LiteRT on this CPU, "
        "and how much memory, side by side. Ratios are to the first file.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.tflite")
    parser.add_argument(
        "--runs",
        type=whole_number(1, usual=200),
        default=200,
        help="measured runs (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        nargs="+",
        metavar="N",
        help="how many threads LiteRT may use (default: one, and as many as this CPU has cores)",
    )
    parser.add_argument(
        "--kernels",
        nargs="+",
        choices=("xnnpack", "builtin", "reference"),
        help="those of phones, LiteRT's own, or those that microcontrollers share (default: the "
        "first two)",
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    check_files(arguments.files)
    from keras_kd import tflite

    models = [tflite.TFLiteModel.load(file) for file in arguments.files]
    chosen = {
        name: tuple(value)
        for name, value in (("threads", arguments.threads), ("kernels", arguments.kernels))
        if value
    }
    benchmarks = []
    with working("measuring") as say:
        for file, model in zip(arguments.files, models, strict=True):
            say(f"measuring {file}")
            benchmarks.append(model.benchmark(arguments.runs, **chosen))
    names = [str(file) for file in arguments.files]
    data = [
        {"file": name, **benchmark.to_dict()}
        for name, benchmark in zip(names, benchmarks, strict=True)
    ]
    return Outcome(_table(names, benchmarks), {"files": data})


def _table(names: list[str], benchmarks: list[Benchmark]) -> str:
    """One line for each way of running each file; ratios to the same way of the first file."""
    first = benchmarks[0]
    first_memory = first.peak_memory_bytes
    rows, has_doubt = [], False
    for name, benchmark in zip(names, benchmarks, strict=True):
        memory = benchmark.peak_memory_bytes
        for latency, baseline in zip(benchmark.latencies, first.latencies, strict=True):
            is_doubtful = latency in benchmark.doubtful
            has_doubt |= is_doubtful
            rows.append(
                (
                    name,
                    latency.kernels,
                    str(latency.threads),
                    f"{latency.median:.1f}{'*' if is_doubtful else ''}",
                    f"{latency.mean:.1f}",
                    f"{latency.p95:.1f}",
                    f"{latency.median / baseline.median:.2f}",
                    f"{memory / 1e6:.1f} MB" if memory else "-",
                    f"{memory / first_memory:.2f}" if memory and first_memory else "-",
                )
            )
    doubt = ""
    if has_doubt:
        from keras_kd.tflite.runtimes.benchmark import DOUBT

        doubt = f"\n* {DOUBT}"
    return f"{aligned(_HEADER, rows, left=2)}\n\nmicroseconds for one example{doubt}"
