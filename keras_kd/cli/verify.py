"""`keras-kd verify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_kd.cli.arguments import (
    MODEL,
    add_custom_objects,
    add_json,
    examples,
    labels,
    load_model,
)
from keras_kd.cli.terminal import Outcome, working


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "verify",
        help="compare a .tflite with the model that it was made from",
        description="Run a .tflite in LiteRT and the model that it was made from in Keras on the "
        "same examples, and show how far their answers are apart.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.tflite")
    parser.add_argument(
        "--against",
        type=Path,
        required=True,
        metavar=MODEL,
        help="the model that the file was made from",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DATA.npy|DATA.npz",
        help="examples, scaled as the model was trained; .npz: an array for each input",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="LABELS.npy|LABELS.npz",
        help="the class, labels or targets of each example; shows what the file and the model "
        "achieve; .npz: an array for each output",
    )
    add_custom_objects(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> Outcome:
    from keras_kd import tflite

    with working("reading the examples") as say:
        compared = examples(arguments.data)
        classes = labels(arguments.labels)
        file = tflite.TFLiteModel.load(arguments.file)
        say("loading the model")
        model = load_model(arguments.against, arguments.custom_objects)
        say("running both on the examples")
        verification = file.verify(model, compared, classes)
    data = {"file": str(arguments.file), "against": str(arguments.against)}
    return Outcome(str(verification), {**data, **verification.to_json()})
