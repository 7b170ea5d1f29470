"""Where the time of a step goes, by kernel: `python benchmarks/step_profile.py`.

Runs a way of `benchmarks/step.py` under TensorFlow's profiler and prints the kernels by their time,
beside those of another way. Kernels run side by side on several threads, so that their times add up
to more than a step takes; the profiler itself takes its time, too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import machine
import step
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow.tsl.profiler.protobuf import xplane_pb2

STEPS = 20


def kernels(way: Callable[[], Any]) -> tuple[Counter, Counter]:
    """Of each kind of kernel, the microseconds and the calls in a step."""
    for _ in range(10):
        way()
    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            for _ in range(STEPS):
                way()
        (path,) = Path(directory).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    microseconds, calls = Counter(), Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                # Besides kernels there are the executor's own events, and the input pipeline's.
                if name and (hasattr(tf.raw_ops, kind) or kind.startswith("_Mkl")):
                    microseconds[kind] += event.duration_ps / 1e6 / STEPS
                    calls[kind] += 1 / STEPS
    return microseconds, calls


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", choices=step.TEACHERS, default="small")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--way", default=step.ONLINE, help=f"(default {step.ONLINE!r})")
    parser.add_argument("--beside", default=step.ALONE, help=f"(default {step.ALONE!r})")
    parser.add_argument("--rows", type=int, default=16, help="kinds of kernels (default 16)")
    options = parser.parse_args()
    teacher = step.classifier(step.TEACHERS[options.teacher], options.teacher)
    with tempfile.TemporaryDirectory() as directory:
        ways = step.ways(teacher, options.batch_size, Path(directory))
        found = {name: kernels(ways[name]) for name in (options.way, options.beside)}
    columns = [f"{name}: {unit}" for name in found for unit in ("microseconds", "calls")]
    table = Table(
        "kernel", *columns, title=f"{options.teacher} teacher, batch {options.batch_size}"
    )
    shown = dict(found[options.way][0].most_common(options.rows))
    for kind in shown:
        cells = [f"{counted[kind]:.0f}" for pair in found.values() for counted in pair]
        table.add_row(kind, *cells)
    others = [
        f"{sum(count for kind, count in counted.items() if kind not in shown):.0f}"
        for pair in found.values()
        for counted in pair
    ]
    table.add_row("all others", *others)
    console = Console(width=130)
    console.print(table)
    console.print(machine.describe())


if __name__ == "__main__":
    main()
