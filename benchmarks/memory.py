"""How much memory does distillation take? `python benchmarks/memory.py`

Every way of training runs in a fresh process, several times, and the most memory that the process
held is printed: a student alone, with a teacher in every step (`keras_kd.Distiller` and
`keras.distillation.Distiller`), and with what the teacher said in a store. Beside them are what
tells whether that is much: the imports, the teacher's inference, and training the teacher, which
keeps its activations for gradients. At last a store of features is read in shuffled order that is
larger than the memory that this may take. About six minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import machine
from rich.console import Console
from rich.table import Table

WORKER = Path(__file__).with_name("memory_modes.py")
COMPARED = (
    "imports",
    "teacher inference",
    "student alone",
    "keras_kd, online teacher",
    "keras.distillation",
    "keras_kd, stored teacher",
    "read features, shuffled",
)
# What others read, and what takes a minute and is far from all others.
ONCE = ("store", "store features", "training the teacher")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Taken:
    """What a mode took in its runs.

    Attributes:
        peaks: the most that a process held, in bytes.
        own: the part of it that was no mapped file, in bytes.
        seconds: how long the mode took, imports not counted.
    """

    peaks: tuple[float, ...]
    own: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def peak(self) -> float:
        """The median of the peaks."""
        return statistics.median(self.peaks)


def in_a_process(mode: str, setting: dict, directory: Path) -> dict[str, float]:
    """Run a mode of `memory_modes.py` in a process of its own.

    Raises:
        RuntimeError: if it fails.
    """
    process = subprocess.run(
        [sys.executable, str(WORKER), mode, json.dumps(setting), str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        raise RuntimeError(f"{mode!r} ended with {process.returncode}:\n{process.stderr[-2000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def in_turns(repetitions: int) -> Iterator[str]:
    """All modes, the stores first; those that are compared take turns."""
    yield from ONCE
    for _ in range(repetitions):
        yield from COMPARED


def measure(repetitions: int, setting: dict, progress: Console) -> dict[str, Taken]:
    """Run every mode; what each took, by its name."""
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="keras_kd_memory_") as directory:
        for mode in in_turns(repetitions):
            took = in_a_process(mode, setting, Path(directory))
            runs.setdefault(mode, []).append(took)
            progress.print(
                f"{mode}: {took['peak'] / MEGABYTE:,.0f} MB ({took['seconds']:.0f} s)", style="dim"
            )
    return {
        mode: Taken(*(tuple(run[name] for run in of_mode) for name in ("peak", "own", "seconds")))
        for mode, of_mode in runs.items()
    }


def table(taken: dict[str, Taken]) -> Table:
    """A row for each mode."""
    rows = Table(title="Peak memory of a process, in MB")
    rows.add_column("mode")
    for column in ("median", "above imports", "of it no mapped file", "least to most", "runs"):
        rows.add_column(column, justify="right")
    for mode, took in taken.items():
        rows.add_row(
            mode,
            _megabytes(took.peak),
            _megabytes(took.peak - taken["imports"].peak),
            _megabytes(statistics.median(took.own)),
            f"{_megabytes(min(took.peaks))} to {_megabytes(max(took.peaks))}",
            str(len(took.peaks)),
        )
    return rows


def conclusions(taken: dict[str, Taken], teacher: dict[str, float], store: float) -> list[str]:
    """What the rows say, in sentences.

    Args:
        taken: by the modes' names.
        teacher: bytes of the teacher's `weights`, and of its `activations` on a batch.
        store: bytes of the store of features.
    """

    def above(mode: str, other: str) -> str:
        return f"{(taken[mode].peak - taken[other].peak) / MEGABYTE:+,.0f} MB"

    online = "keras_kd, online teacher"
    return [
        f"The teacher has {_megabytes(teacher['weights'])} MB of weights, and all that its layers "
        f"say of a batch is {_megabytes(teacher['activations'])} MB.",
        f"Asking it in every step: {above(online, 'student alone')} against the student alone, "
        f"{above(online, 'teacher inference')} against its inference, "
        f"{above(online, 'keras.distillation')} against keras.distillation. "
        f"Its activations, kept as for its own training: "
        f"{above('training the teacher', 'student alone')}.",
        f"What it said in a store: {above('keras_kd, stored teacher', 'student alone')} against "
        "the student alone.",
        f"Reading a store of {_megabytes(store)} MB in shuffled order: "
        f"{above('read features, shuffled', 'imports')} against imports.",
    ]


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="of each (default 3)")
    parser.add_argument("--teacher", default="ResNet50", help="of keras.applications; or small")
    parser.add_argument("--size", type=int, default=96, help="of the images (default 96)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default 64)")
    parser.add_argument("--store", type=int, default=1000, help="MB of features (default 1000)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run every mode and print one table."""
    options = parsed(arguments)
    setting = {
        "teacher": options.teacher,
        "image": (options.size, options.size, 3),
        "batch_size": options.batch_size,
        "store_megabytes": options.store,
    }
    console = Console(width=120, highlight=False)
    taken = measure(options.repetitions, setting, Console(stderr=True, highlight=False))
    with tempfile.TemporaryDirectory() as directory:
        teacher = in_a_process("teacher", setting, Path(directory))
    console.print(table(taken))
    console.print(
        f"Teacher {options.teacher}, batches of {options.batch_size} images of "
        f"{options.size}x{options.size}."
    )
    for sentence in conclusions(taken, teacher, options.store * MEGABYTE):
        console.print(sentence)
    console.print(machine.describe())


def _megabytes(count: float) -> str:
    return f"{count / MEGABYTE:,.0f}"


if __name__ == "__main__":
    main()
