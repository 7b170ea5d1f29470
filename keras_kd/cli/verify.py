"""`keras-kd verify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_kd._checks import problem
from keras_kd.cli.arguments import (
    MODEL,
    add_custom_objects,
    add_json,
    check_custom_objects,
    check_data,
    check_models,
    examples,
    labels,
    load_model,
    real_number,
)
from keras_kd.cli.terminal import Outcome, working


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "verify",
        help="compare a .tflite with the model that it was made from",
        description="Run a .tflite in LiteRT and the model that it was made from in Keras on the "
        "same examples, and show how far their answers are apart. Any converter may have made the "
        "file. The exit code is 1 if it is not the file of this model.",
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
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        type=_names,
        metavar="FILE_NAME=MODEL_NAME",
        help="which input or output of the file is which of the model's, where neither names nor "
        "shapes tell; may be repeated",
    )
    parser.add_argument(
        "--min-agreement",
        type=real_number(at_least=0, at_most=100),
        metavar="PERCENT",
        help="how many of 100 choices must be those of the model (default: 99.5 of the clear ones, "
        "which rounding does not change, 99 for int4)",
    )
    add_custom_objects(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _names(text: str) -> tuple[str, str]:
    # Names that TensorFlow gives have no "=" in them.
    name, separator, other = text.rpartition("=")
    if not (name and separator and other):
        raise problem(
            text,
            "FILE_NAME=MODEL_NAME",
            "write for example serving_default_x:0=image; keras-kd inspect shows the names",
            kind=argparse.ArgumentTypeError,
        )
    return name, other


def _pairs(arguments: argparse.Namespace) -> dict[str, str]:
    pairs = dict(arguments.map)
    if len(pairs) < len(arguments.map):
        raise problem("a name of the file twice in --map", "each of them once", "leave one out")
    return pairs


def _run(arguments: argparse.Namespace) -> Outcome:
    check_models(arguments.file, arguments.against)
    check_custom_objects(arguments.custom_objects)
    check_data(arguments.data, arguments.labels)
    pairs = _pairs(arguments)
    with working("reading the examples") as say:
        compared = examples(arguments.data)
        y = labels(arguments.labels)
        from keras_kd import tflite
        from keras_kd.tflite.verification.closeness import misses

        file = tflite.TFLiteModel.load(arguments.file)
        say("loading the model")
        model = load_model(arguments.against, arguments.custom_objects)
        say("running both on the examples")
        verification = tflite.verify(file, model, compared, y, names=pairs)
    form = file.flatbuffer.form
    least = None if arguments.min_agreement is None else arguments.min_agreement / 100
    failures = misses(verification, form, least)
    data = {
        "file": str(arguments.file),
        "against": str(arguments.against),
        "form": form,
        "passed": not failures,
        "failures": failures,
    }
    return Outcome(str(verification), {**data, **verification.to_dict()}, failures)
