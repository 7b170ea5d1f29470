"""`keras-kd inspect`."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path

from keras_kd import _model_files
from keras_kd._checks import problem
from keras_kd._files import is_database
from keras_kd._limits import watched
from keras_kd._model_files import stored
from keras_kd.cli.arguments import BYTES_PER_SECOND, add_json
from keras_kd.cli.terminal import Outcome, working

# Far more than any description in a file takes.
_SECONDS = 30
_EXPECTED = "a .tflite, .keras or .h5 file, or a store that keras-kd store has written"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "inspect",
        help="show what is in a .tflite, a .keras or .h5, or a store of a teacher's outputs",
        description="Show the size, inputs, outputs and operators of a .tflite, what its bytes are "
        "used for, what it computes in floating point, what it keeps between calls, class names "
        "and normalization. The file is read, not run: it may be for any runtime. Or show the "
        "layers, parameters and inputs of a model that Keras has saved, without building it. Or "
        "read the store that keras-kd store has written, compare its checksums, and show what it "
        "holds.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite|MODEL.keras|MODEL.h5|FILE.store")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    path = arguments.file
    if path.is_dir():
        raise _no_file(path)
    if is_database(path):
        return _inspect_store(path)
    return (_inspect_model if path.suffix in stored.SUFFIXES else _inspect_file)(path)


def _inspect_file(path: Path) -> Outcome:
    from keras_kd import tflite

    with _watched(path):
        inspection = tflite.inspect(path)
    return Outcome(str(inspection), {"file": str(path), **inspection.to_dict()})


def _inspect_model(path: Path) -> Outcome:
    _model_files.check_path(path)
    with _watched(path):
        description = stored.describe(path)
    return Outcome(str(description), {"file": str(path), **description.to_dict()})


def _inspect_store(path: Path) -> Outcome:
    from keras_kd.teachers.stored.summary import summarize

    with working("reading all of the store"):
        summary = summarize(path, verify=True)
    text = f"{summary}\n\nevery checksum is right"
    return Outcome(text, {**summary.to_dict(), "verified": True})


def _no_file(directory: Path) -> ValueError:
    fix = (
        "inspect the .keras that it was exported from, or the .tflite that keras-kd convert "
        "makes of it"
        if stored.is_saved_model(directory)
        else "check the path"
    )
    return problem(f"the directory {str(directory)!r}", _EXPECTED, fix)


def _watched(path: Path) -> AbstractContextManager[None]:
    size = path.stat().st_size if path.is_file() else 0
    # HDF5 loops forever in some damaged files.
    return watched(f"the file {str(path)!r} while it is read", _SECONDS + size / BYTES_PER_SECOND)
