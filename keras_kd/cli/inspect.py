"""`keras-kd inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_kd.cli.arguments import add_json
from keras_kd.cli.terminal import Outcome, working


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "inspect",
        help="show what is in a .tflite, or in a store of a teacher's outputs",
        description="Show the size, inputs, outputs and operators of a .tflite, what its bytes are "
        "used for, and what it computes in floating point. Or read the store that keras-kd "
        "store has written, compare its checksums, and show what it holds.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite|FILE.store")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from keras_kd.teachers.stored.database import is_store

    file = arguments.file
    return (_inspect_store if file.is_dir() or is_store(file) else _inspect_file)(file)


def _inspect_file(path: Path) -> Outcome:
    from keras_kd import tflite

    inspection = tflite.TFLiteModel.load(path).inspect()
    return Outcome(str(inspection), {"file": str(path), **inspection.to_json()})


def _inspect_store(path: Path) -> Outcome:
    from keras_kd.teachers.stored.summary import summarize

    with working("reading all of the store"):
        summary = summarize(path, verify=True)
    text = f"{summary}\n\nevery checksum is right"
    return Outcome(text, {**summary.to_json(), "verified": True})
