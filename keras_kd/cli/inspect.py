"""`keras-kd inspect`."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_kd.cli.arguments import add_json
from keras_kd.cli.terminal import Outcome


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "inspect",
        help="show what is in a .tflite",
        description="Show the size, inputs, outputs and operators of a .tflite, what its bytes are "
        "used for, and what it computes in floating point.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from keras_kd import tflite

    inspection = tflite.TFLiteModel.load(arguments.file).inspect()
    return Outcome(str(inspection), {"file": str(arguments.file), **inspection.to_json()})
